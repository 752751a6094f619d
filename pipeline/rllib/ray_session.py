"""The Ray that training uses: none, one that starts and stops beside what the program does meanwhile, or a cluster."""

import importlib.util
import logging
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pipeline.config import TrainConfig
from pipeline.rllib.errors import NotEnoughResources
from pipeline.signals import regain_sigterm
from serving.ray.errors import ClusterUnreachable

_KNOCK_S = 10.0


class RaySession:
    """Ray, started by a thread while the program imports what it needs; a context manager.

    A training in this process alone needs none, and gets none unless it is told to join one.

    Starting Ray is mostly waiting for its processes, so both go on at once. The thread lives as long as Ray does: its
    end would be the end of the driver. Ray leaves Python's signal handlers alone, since it is not the main thread.

    Args:
        address: Of a running Ray to join; None starts one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._started = threading.Event()
        self._leave = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.begin_to_stop()
        if self._thread.ident is not None:
            self._thread.join()

    def begin(self, config: TrainConfig, num_trials: int = 0) -> None:
        """Start Ray, or join it, without waiting for it.

        Args:
            config: Of the training that it is for.
            num_trials: How many of them go on at once, each from a process of Ray's; 0 if one does, from this process.
        """
        self._config = config
        self._num_cpus = (1 + config.num_cpus) * num_trials if num_trials else config.num_cpus
        if self._address is not None or num_trials or not config.is_one_process:
            self._thread.start()

    def await_ready(self) -> None:
        """Wait, in the main thread, until Ray runs.

        Raises:
            ClusterUnreachable: If there is none to join.
            NotEnoughResources: If it has too little for the configuration.
            Whatever else starting it raised.
        """
        if self._thread.ident is None:
            return
        self._started.wait()
        regain_sigterm()
        if self._error is not None:
            raise self._error
        _check_resources(self._config)

    def begin_to_stop(self) -> None:
        """Stop Ray without waiting for it; nothing may use it from here on."""
        self._leave.set()

    def _live(self) -> None:
        try:
            import ray

            if self._address is not None:
                _knock(self._address)
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **self._where())
        except (OSError, RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), repr(error))
            self._error = error if self._address is None else ClusterUnreachable(self._address, reason)
        except BaseException as error:  # noqa: BLE001  # it belongs to the thread that waits
            self._error = error
        self._started.set()
        self._leave.wait()
        if self._error is None:
            ray.shutdown()

    def _where(self) -> dict[str, Any]:
        if self._address is not None:
            return {"address": self._address, "runtime_env": {"py_modules": _code(_modules(self._config))}}
        # "local" always starts a Ray; no address would join whichever runs on this machine. It counts processes, not
        # cores: it runs as many as are asked for.
        return {"address": "local", "include_dashboard": False, "num_cpus": self._num_cpus}


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`: Ray would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _modules(config: TrainConfig) -> list[str]:
    """The modules that a configuration names: those of `module:Id` and `module:Class`."""
    names = [config.env_id, *config.wrappers, config.rl_module]
    return [name.rpartition(":")[0] for name in names if ":" in name]


def _code(modules: Iterable[str]) -> list[str]:
    """What a cluster needs of this machine: these packages, and the modules of the user's own."""
    packages = [str(Path(__file__).parents[2] / name) for name in ("pipeline", "serving")]
    for module in modules:
        found = importlib.util.find_spec(module.partition(".")[0])
        if found is None or found.origin is None or "site-packages" in found.origin:
            continue  # an installed package is the cluster's to install
        is_package = found.submodule_search_locations is not None
        packages.append(str(Path(found.origin).parent if is_package else found.origin))
    return list(dict.fromkeys(packages))


def _check_resources(config: TrainConfig) -> None:
    import ray
    import torch

    cluster = ray.cluster_resources()
    gpus = cluster.get("GPU", 0.0) if config.num_learners else torch.cuda.device_count()
    if config.num_gpus > gpus:
        raise NotEnoughResources("GPU", config.num_gpus, gpus, "num_learners x num_gpus_per_learner")
    if config.num_cpus > cluster.get("CPU", 0.0):
        raise NotEnoughResources("CPU", config.num_cpus, cluster.get("CPU", 0.0), "num_env_runners + num_learners")

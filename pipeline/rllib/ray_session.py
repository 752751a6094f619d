"""Starts the Ray that training needs, or joins a cluster, while the program imports its libraries."""

import importlib.util
import logging
import socket
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from pipeline.config import TrainConfig
from pipeline.rllib.errors import ClusterUnreachable, NotEnoughResources
from pipeline.signals import regain_sigterm

_CONNECT_TIMEOUT_S = 10.0


class RaySession:
    """A context manager that starts Ray in a thread and stops it at the end.

    Training in this process alone needs no Ray; then none starts, unless an address is given.

    Starting Ray mostly waits for its processes, so the program imports its libraries meanwhile. Ray ends with the
    thread that started it, and in a thread it leaves Python's signal handlers unchanged.

    Args:
        address: The address of a running Ray to join; None starts one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._ready: Future[None] = Future()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def start(self, config: TrainConfig, num_trials: int = 0) -> None:
        """Start or join Ray without waiting for it.

        Args:
            config: The settings of the training, or of one trial.
            num_trials: The number of concurrent trials, each in a Ray process; 0 trains in this process.
        """
        self._config = config
        self._num_cpus = (1 + config.num_cpus) * num_trials if num_trials else config.num_cpus
        if self._address is not None or num_trials or not config.is_one_process:
            self._thread.start()

    def wait_until_ready(self) -> None:
        """Wait, in the main thread, until Ray runs.

        Raises:
            ClusterUnreachable: If there is no Ray cluster at the address, or it rejects this process.
            NotEnoughResources: If Ray has fewer CPUs or GPUs than the settings need.
            Exception: Whatever else starting Ray raised.
        """
        if self._thread.ident is None:
            return
        error = self._ready.exception()
        regain_sigterm()
        if error is not None:
            raise error
        _check_resources(self._config)

    def stop(self) -> None:
        """Stop Ray without waiting for it; nothing may use Ray afterwards."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            import ray

            if self._address is not None:
                _check_listening(self._address)
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **self._arguments())
        except (OSError, RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), repr(error))
            self._ready.set_exception(error if self._address is None else ClusterUnreachable(self._address, reason))
        except BaseException as error:  # noqa: BLE001  # `wait_until_ready` raises it in the main thread
            self._ready.set_exception(error)
        else:
            self._ready.set_result(None)
            self._stopping.wait()
            ray.shutdown()

    def _arguments(self) -> dict[str, Any]:
        if self._address is not None:
            return {"address": self._address, "runtime_env": {"py_modules": _code(self._config)}}
        # Without "local", Ray would join one that runs on this machine. `num_cpus` is the number of worker processes;
        # oversubscription is intended.
        return {"address": "local", "include_dashboard": False, "num_cpus": self._num_cpus}


def _check_listening(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`, because Ray would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _code(config: TrainConfig) -> list[str]:
    """Return the files and directories that a cluster needs: these packages, and the modules that settings name."""
    code = [str(Path(__file__).parents[2] / name) for name in ("pipeline", "serving")]
    names = [config.env_id, *config.wrappers, config.rl_module]
    for module in [name.rpartition(":")[0] for name in names if ":" in name]:
        found = importlib.util.find_spec(module.partition(".")[0])
        if found is None or found.origin is None or "site-packages" in found.origin:
            continue  # the cluster installs packages itself
        is_package = found.submodule_search_locations is not None
        code.append(str(Path(found.origin).parent if is_package else found.origin))
    return list(dict.fromkeys(code))


def _check_resources(config: TrainConfig) -> None:
    import ray
    import torch

    cluster = ray.cluster_resources()
    cpus = cluster.get("CPU", 0.0)
    gpus = cluster.get("GPU", 0.0) if config.num_learners else torch.cuda.device_count()
    if config.num_gpus > gpus:
        raise NotEnoughResources("GPU", config.num_gpus, gpus, "num_learners x num_gpus_per_learner")
    if config.num_cpus > cpus:
        raise NotEnoughResources("CPU", config.num_cpus, cpus, "num_env_runners + num_learners")

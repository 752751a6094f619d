"""The export, tried in a process of its own: what cannot be exported fails in seconds, not after hours of training."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from typing import Self

from pipeline.config import TrainConfig
from pipeline.errors import ExportFailed, PipelineError


class ExportTrial:
    """Exports an untrained policy while this process imports what training needs; a context manager."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def begin(self, config: TrainConfig) -> None:
        """Begin, without waiting for it, for a training of this configuration."""
        context = multiprocessing.get_context("spawn")
        self._outcome, outcome = context.Pipe(duplex=False)
        self._process = context.Process(target=_try, args=(config, outcome), name="export trial", daemon=True)
        self._process.start()
        outcome.close()

    def await_success(self) -> None:
        """Wait until the policy was exported.

        Raises:
            ExportFailed: If it cannot be.
            EnvironmentNotFound, EnvKwargsRefused, NoSuchObject, UnsupportedSpace: If there is nothing to train on.
            UnknownModelSetting: If a setting of the network means nothing.
        """
        try:
            error: Exception | None = self._outcome.recv()
        except EOFError:
            raise ExportFailed("the process that tried it ended without a word.") from None
        if error is not None:
            raise error


def _try(config: TrainConfig, outcome: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's business
    try:
        attempt(config)
    except PipelineError as error:
        outcome.send(error)
    except Exception as error:  # noqa: BLE001  # whatever it is: not every exception can be sent
        outcome.send(ExportFailed(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"))
    else:
        outcome.send(None)


def attempt(config: TrainConfig) -> None:
    """Export an untrained policy, in this process. Raises as `ExportTrial.await_success`, and what RLlib raises."""
    from pipeline import environments, export, filters, networks
    from pipeline.export import ExportablePolicy

    environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
    spaces = environment.observation_space, environment.action_space
    if config.observation_filter == filters.MEAN_STD:
        filters.check(environment.observation_space)
    module = networks.untrained(config, environment)
    export.to_onnx(ExportablePolicy(module, *spaces, with_values=config.value_estimates))

"""The export, tried before anything depends on it: what cannot be exported fails in seconds, not after hours."""

import contextlib
from collections.abc import Iterator

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.errors import PipelineError
from pipeline.export import exportable_policy as export
from pipeline.export import observation_filter as filters
from pipeline.export.errors import ExportFailed
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.networks import module_spec as networks


def check(config: TrainConfig) -> None:
    """Build an untrained policy of this configuration, which takes no time.

    Raises:
        ExportFailed: If RLlib cannot.
        EnvironmentNotFound, EnvKwargsRefused, NoSuchObject, UnsupportedSpace: If there is nothing to train on.
        UnknownModelSetting: If a setting of the network means nothing.
    """
    with _explained():
        _untrained(config)


def attempt(config: TrainConfig) -> None:
    """Export an untrained policy of this configuration, which takes seconds.

    Raises:
        ExportFailed: If it cannot be.
        As `check`.
    """
    with _explained():
        export.to_onnx(_untrained(config))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ExportFailed(f"{type(error).__name__}: {reason}") from error


def _untrained(config: TrainConfig) -> ExportablePolicy:
    environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
    spaces = environment.observation_space, environment.action_space
    if config.observation_filter == filters.MEAN_STD:
        filters.check(environment.observation_space)
    return ExportablePolicy(networks.untrained(config, environment), *spaces, with_values=config.value_estimates)

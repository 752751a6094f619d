"""The export, tried before training: what cannot be exported fails in seconds, not after hours."""

from pipeline import environments, export, filters, networks
from pipeline.config import TrainConfig
from pipeline.errors import ExportFailed, PipelineError
from pipeline.export import ExportablePolicy


def attempt(config: TrainConfig) -> None:
    """Export an untrained policy of this configuration.

    Raises:
        ExportFailed: If it cannot be.
        EnvironmentNotFound, EnvKwargsRefused, NoSuchObject, UnsupportedSpace: If there is nothing to train on.
        UnknownModelSetting: If a setting of the network means nothing.
    """
    try:
        _export(config)
    except PipelineError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ExportFailed(f"{type(error).__name__}: {reason}") from error


def _export(config: TrainConfig) -> None:
    environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
    spaces = environment.observation_space, environment.action_space
    if config.observation_filter == filters.MEAN_STD:
        filters.check(environment.observation_space)
    module = networks.untrained(config, environment)
    export.to_onnx(ExportablePolicy(module, *spaces, with_values=config.value_estimates))

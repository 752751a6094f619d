"""Builds and exports an untrained policy before training, so that an invalid configuration fails within seconds."""

import contextlib
from collections.abc import Iterator

from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.errors import InvalidConfig
from pipeline.export import observation_filter
from pipeline.export.errors import ExportFailed
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.onnx_graph import to_onnx
from pipeline.networks import module_spec
from serving.errors import ExpectedError


@contextlib.contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except ExpectedError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ExportFailed(f"{type(error).__name__}: {reason}") from error


@_errors_explained()
def check(config: TrainConfig) -> None:
    """Build an untrained policy of this configuration, which takes milliseconds.

    Raises:
        ExportFailed: If RLlib cannot build it.
        EnvironmentNotFound, EnvironmentNotMade, EnvKwargsRefused, NoSuchObject, UnsupportedSpace: If the environment
            cannot be trained on.
        UnknownModelSetting: If the policy would not use a setting of the network.
        InvalidConfig: If the policy cannot explore with correlated noise.
    """
    _untrained(config)


@_errors_explained()
def export(config: TrainConfig) -> None:
    """Export an untrained policy of this configuration, which takes seconds.

    Raises:
        ExportFailed: If it cannot be built or exported.
        PipelineError: As `check`.
    """
    to_onnx(_untrained(config))


def _untrained(config: TrainConfig) -> ExportablePolicy:
    environment = environments.of_config(config)
    spaces = environment.observation_space, environment.action_space
    if config.observation_filter == observation_filter.MEAN_STD:
        observation_filter.check(environment.observation_space)
    module = module_spec.untrained(config, environment)
    _check_noise(config, module)
    return ExportablePolicy(module, *spaces, with_values=config.value_estimates)


def _check_noise(config: TrainConfig, module: TorchRLModule) -> None:
    is_gaussian = module.get_exploration_action_dist_cls() is TorchDiagGaussian
    if config.noise_correlation and (not is_gaussian or module.is_stateful() or config.sampling != "arrays"):
        expected = "0, except for actions of one Box of floats, without use_lstm, and with sampling arrays"
        raise InvalidConfig("noise_correlation", config.noise_correlation, expected)

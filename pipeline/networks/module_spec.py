"""Chooses the RLModule that is trained, and validates its settings."""

import dataclasses
import logging
from typing import Any

from gymnasium import Space
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.config import TrainConfig, nearest_of
from pipeline.environments import supported
from pipeline.environments.errors import NoSuchObject
from pipeline.environments.images import is_image
from pipeline.environments.make import Environment, import_class
from pipeline.networks.errors import UnknownModelSetting
from pipeline.networks.modules import AnySpacePPOModule, is_plain
from serving.policy.spaces import leaves

# RLlib warns about its own defaults at each start; problems that matter raise an error.
logging.getLogger("ray").setLevel(logging.ERROR)
logging.getLogger("ray.rllib").setLevel(logging.CRITICAL)

#: Prefixes of the settings that RLlib's PPO ignores.
_IGNORED_BY_PPO = ("lstm_use_prev_action", "lstm_use_prev_reward", "fusionnet_")


def spec(config: TrainConfig, environment: Environment) -> RLModuleSpec:
    """Return the specification from which RLlib builds the policy.

    Raises:
        UnknownModelSetting: If RLlib does not know a setting of `model_config`, or would ignore it.
        NoSuchObject: If `rl_module` does not name an RLModule for PPO.
    """
    settings = {
        "fcnet_hiddens": config.hidden_units,
        "fcnet_activation": config.fcnet_activation,
        "vf_share_layers": config.vf_share_layers,
        **config.model_settings,
    }
    if config.rl_module != "default":
        return RLModuleSpec(module_class=_custom(config.rl_module), model_config=settings)
    _check_settings(config.model_settings, environment.observation_space)
    module_class = DefaultPPOTorchRLModule if is_plain(environment.observation_space) else AnySpacePPOModule
    return RLModuleSpec(module_class=module_class, model_config=DefaultModelConfig(**settings))


def untrained(config: TrainConfig, environment: Environment) -> TorchRLModule:
    """Build an untrained policy, without Ray.

    Raises:
        UnsupportedSpace: If the policy is recurrent and RLlib does not support that for the action space.
        UnknownModelSetting, NoSuchObject: As `spec`.
    """
    unbuilt = spec(config, environment)
    unbuilt.observation_space = environment.observation_space
    unbuilt.action_space = environment.trained_action_space
    module: TorchRLModule = unbuilt.build()
    if module.is_stateful():
        supported.check_recurrent(environment.action_space)
    return module


def _custom(name: str) -> type[TorchRLModule]:
    found = import_class(name)
    if not (isinstance(found, type) and issubclass(found, TorchRLModule) and issubclass(found, ValueFunctionAPI)):
        raise NoSuchObject(name, "it is not a TorchRLModule with ValueFunctionAPI, which PPO requires.")
    return found


def _check_settings(settings: dict[str, Any], space: Space[Any]) -> None:
    known = sorted(each.name for each in dataclasses.fields(DefaultModelConfig))
    for name in settings:
        if name not in known:
            nearest = nearest_of(name, known)
            raise UnknownModelSetting(name, f"is not a model setting of RLlib; the nearest is '{nearest}'.")
        reason = _why_ignored(name, settings, space)
        if reason is not None:
            raise UnknownModelSetting(name, f"has no effect: {reason}. Omit it.")


def _why_ignored(name: str, settings: dict[str, Any], space: Space[Any]) -> str | None:
    if name.startswith(_IGNORED_BY_PPO):
        return "RLlib's PPO ignores it"
    if name.startswith("conv_") and not any(is_image(leaf.space) for leaf in leaves(space)):
        return "no observation is an image (height x width x channels)"
    if (name.startswith("lstm_") or name == "max_seq_len") and not settings.get("use_lstm"):
        return 'it requires "use_lstm": true'
    return None

"""The settings of a training: those that the user gives, over those that are chosen for the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import BY_MACHINE, TrainConfig, convert
from pipeline.environments import make as environments
from pipeline.settings import by_environment, files
from serving.errors import ExpectedError

#: The settings that tell which environment is meant.
_OF_ENVIRONMENT = ("env_id", "env_kwargs", "wrapper")


@dataclass(frozen=True)
class Chosen:
    """Settings that were chosen for an environment.

    Attributes:
        settings: The settings by name.
        notes: Lines that tell where they come from, and why.
    """

    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return given settings, converted to their types, before an environment is made; those that are `auto` are not.

    Raises:
        UnknownSetting: If there is no such setting; the error names the nearest known one.
        InvalidConfig: On a value of another type or outside its range.
    """
    numbers = {name: value for name, value in given.items() if name not in BY_MACHINE or value != "auto"}
    converted = {name: convert(name, value) for name, value in numbers.items()}
    # How it compares with the batch size is checked when that is known.
    TrainConfig(**{**converted, "minibatch_size": 1})
    return converted


def chosen_for(given: Mapping[str, Any], *, tuned: bool = True) -> Chosen:
    """Return the settings for an environment, without those that are given.

    They come from the shipped file that is tuned for it. Without one, or if `tuned` is false, they are chosen by the
    environment's spaces and horizon.

    Args:
        given: The given settings by name, of the types that `checked` returns.
        tuned: Whether shipped files count.

    Raises:
        Exception: As `pipeline.environments.make.describe`.
    """
    env_id = given.get("env_id", TrainConfig.env_id)
    shipped = files.tuned_for(env_id)
    if tuned and shipped is not None:
        settings = {name: value for name, value in shipped.settings.items() if name not in given}
        return Chosen(settings, _shipped_notes(shipped, given) if settings else ())
    named = TrainConfig(**{name: given[name] for name in _OF_ENVIRONMENT if name in given})
    found = by_environment.rules(environments.of_config(named), given)
    settings = {name: value for rule in found for name, value in rule.settings.items()}
    if "registered_model_name" not in given:
        own = shipped and shipped.settings.get("registered_model_name")
        settings["registered_model_name"] = own or by_environment.model_name(env_id)
    reason = "" if shipped else f"; none are shipped for {env_id}"
    notes = (f"Settings by the environment's spaces and horizon{reason}:", *(f"  {rule}" for rule in found))
    return Chosen(settings, notes if found else ())


def usual(config: TrainConfig) -> Mapping[str, Any]:
    """Return the settings that would be chosen for the environment of a configuration, to tell which it has changed.

    Those that depend on another setting are adapted to the configuration's. Nothing is returned for an environment that
    cannot be made.
    """
    environment = {name: getattr(config, name) for name in _OF_ENVIRONMENT}
    given = {name: getattr(config, name) for name in by_environment.ADAPTED_TO}
    try:
        return {**chosen_for(environment).settings, **chosen_for(environment | given).settings}
    except ExpectedError:
        return {}


def _shipped_notes(shipped: files.TunedFile, given: Mapping[str, Any]) -> tuple[str, ...]:
    changed = [name for name in ("env_kwargs", "wrapper") if name in given]
    without = f", without your {' and '.join(changed)}" if changed else ""
    return (f"Settings: {shipped.name}, tuned for {shipped.env_id}{without} (--tuned false chooses by its spaces)",)

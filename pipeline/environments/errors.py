"""Errors of environments and their spaces."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class EnvironmentNotFound(PipelineError):
    """Gymnasium has no environment of this id, or a package that it needs is not installed."""

    env_id: str
    reason: str

    template: ClassVar[str] = (
        "No environment '{env_id}': {reason} Give the id of a Gymnasium environment, as 'CartPole-v1', "
        "or 'module:Id' for one that a module registers."
    )


@dataclass(eq=False)
class EnvKwargsRefused(PipelineError):
    """An environment does not accept its keyword arguments (`env_kwargs`)."""

    env_id: str
    kwargs: Mapping[str, object]
    reason: str

    def __str__(self) -> str:
        return (
            f"'{self.env_id}' cannot be made with env_kwargs {json.dumps(self.kwargs, default=str)}: {self.reason} "
            "Use only arguments of its constructor."
        )


@dataclass(eq=False)
class UnsupportedSpace(PipelineError):
    """PPO cannot train on a space, or the policy could not be exported."""

    role: str
    space: str
    reason: str
    supported: str

    template: ClassVar[str] = "The {role} space {space} is not supported: {reason}. Expected {supported}."


@dataclass(eq=False)
class EnvironmentExclusive(PipelineError):
    """A second environment cannot be made while the first one exists, and training needs several."""

    env_id: str
    reason: str
    remedy: str

    template: ClassVar[str] = "'{env_id}' can exist once only: making a second one failed ({reason}). {remedy}"


@dataclass(eq=False)
class NoSuchObject(PipelineError):
    """A name of the form `module:Class` cannot be imported, or is not such a class."""

    name: str
    reason: str

    template: ClassVar[str] = "'{name}' cannot be imported: {reason} Name a class as module:Class."

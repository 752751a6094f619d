"""Errors of environments and their spaces."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class EnvironmentNotFound(PipelineError):
    """Gymnasium has no environment of this id, or could not build it."""

    env_id: str
    reason: str

    template: ClassVar[str] = (
        "No environment '{env_id}': {reason} Give the id of a Gymnasium environment, as 'CartPole-v1', "
        "or 'module:Id' for one that a module registers."
    )


@dataclass(eq=False)
class EnvKwargsRefused(PipelineError):
    """An environment cannot be made with the keyword arguments that it was to be made with."""

    env_id: str
    kwargs: Mapping[str, object]
    reason: str

    def __str__(self) -> str:
        return (
            f"'{self.env_id}' cannot be made with env_kwargs {json.dumps(self.kwargs, default=str)}: {self.reason} "
            "Give what its constructor takes."
        )


@dataclass(eq=False)
class UnsupportedSpace(PipelineError):
    """PPO cannot train on a space of this kind, or its policy could not be exported."""

    role: str
    space: str
    reason: str
    supported: str

    template: ClassVar[str] = "The {role} space {space} is not supported: {reason}. Expected {supported}."


@dataclass(eq=False)
class NoSuchObject(PipelineError):
    """A dotted name names nothing that can be imported."""

    name: str
    reason: str

    template: ClassVar[str] = "'{name}' cannot be imported: {reason} Name a class as module:Class."

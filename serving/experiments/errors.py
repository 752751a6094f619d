"""Errors of experiments."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ExperimentInvalid(ServingError):
    """The tag with the state of an experiment cannot be read."""

    reason: str

    template = "the experiment cannot be read: {reason}"

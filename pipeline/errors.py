"""The base of all errors of this package, and the errors that several rooms share.

Each room defines its own errors in its `errors.py`. An error is a dataclass: its fields are the facts, and `template`
is the message.
"""

from dataclasses import dataclass
from typing import ClassVar

from serving.errors import ExpectedError


class PipelineError(ExpectedError):
    """A failure that the user can act on; the message is one line that says how."""


@dataclass(eq=False)
class InvalidConfig(PipelineError):
    """A training setting has a value of the wrong type or out of its range."""

    setting: str
    value: object
    expected: str

    template: ClassVar[str] = "{setting} is {value!r}, expected {expected}."


@dataclass(eq=False)
class UnknownSetting(PipelineError):
    """There is no training setting of this name."""

    setting: str
    nearest: str

    template: ClassVar[str] = "There is no setting '{setting}'; the nearest is '{nearest}'."


@dataclass(eq=False)
class UnreadableConfig(PipelineError):
    """A file of settings is not a YAML mapping."""

    file: str
    reason: str

    template: ClassVar[str] = "{file} cannot be read as YAML settings: {reason}"


@dataclass(eq=False)
class RllibUnsupported(PipelineError):
    """The installed RLlib lacks a private part that there is no public way around."""

    version: str
    part: str

    template: ClassVar[str] = "RLlib {version} has no {part}. Install the version of constraints.txt: make setup"


@dataclass(eq=False)
class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM interrupts the command.

    It derives from KeyboardInterrupt, so that no `except Exception` of a library swallows it.
    """

    signal_name: str

    def __str__(self) -> str:
        return f"Interrupted by {self.signal_name}."

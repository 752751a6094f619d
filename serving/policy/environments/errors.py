"""Errors of environments that raise exceptions or return what Gymnasium's contract does not allow."""

from dataclasses import dataclass

from serving.errors import ServingError


class EnvironmentMisbehaved(ServingError):
    """Base of the failures of an environment while it is reset and stepped."""

    @property
    def reason(self) -> str:
        """The call and what it did, without the environment and without paths of this machine."""
        raise NotImplementedError


@dataclass(eq=False)
class EnvironmentRaised(EnvironmentMisbehaved):
    """`reset` or `step` of an environment raised an exception.

    Attributes:
        env_id: the id of the environment.
        call: the call with its step and episode, as in "step 7 of episode 1".
        exception: the exception's type and text, in one line.
        lines: the innermost lines of its traceback.
    """

    template = "the environment '{env_id}' failed: {call} raised {exception}{lines}"

    env_id: str
    call: str
    exception: str
    lines: str

    @property
    def reason(self) -> str:
        """The call and the exception."""
        return f"{self.call} raised {self.exception}"


@dataclass(eq=False)
class ContractBroken(EnvironmentMisbehaved):
    """`reset` or `step` of an environment takes or returns something else than Gymnasium's contract says.

    Attributes:
        env_id: the id of the environment.
        call: the call with its step and episode, as in "step 7 of episode 1".
        found: what it did.
        expected: what it should do.
    """

    template = "the environment '{env_id}' is not as Gymnasium specifies: {call} {found}, expected {expected}"

    env_id: str
    call: str
    found: str
    expected: str

    @property
    def reason(self) -> str:
        """The call and what it did."""
        return f"{self.call} {self.found}, expected {self.expected}"

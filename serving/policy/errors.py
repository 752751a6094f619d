"""Errors of bundles, spaces and policies."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import HttpError, RequestError, ServingError

SPACES = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"


@dataclass(eq=False)
class OptionInvalid(RequestError):
    """The request's option `name` has no value that it can have."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "option_invalid"

    name: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f'"{self.name}" is {self.found}, expected {self.expected}'


@dataclass(eq=False)
class ExploreUnsupported(RequestError):
    """The request asks for a sampled action, and the bundle's graph is greedy only."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "explore_unsupported"

    def __str__(self) -> str:
        return 'this version answers greedily only: its graph takes no noise; leave "explore" out'


@dataclass(eq=False)
class StateInvalid(RequestError):
    """The state at `path` did not come from this server, or was changed since; `reason` says why."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "state_invalid"

    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.path} {self.reason}; send back what the last answer held, or leave it out to begin with the "
            f"initial state"
        )


@dataclass(eq=False)
class PolicyFailed(HttpError):
    """The policy could not compute an action; `reason` goes to the log, not to the client."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "policy_failed"

    reason: str

    def __str__(self) -> str:
        return "the policy failed to compute an action; the server's log says why"


class BundleError(ServingError):
    """A bundle that will not be served."""


@dataclass(eq=False)
class SpaceUnsupported(BundleError):
    """A space, or the JSON form of one, that is not known here."""

    space: str

    def __str__(self) -> str:
        return f"space not supported: {self.space}; supported are {SPACES}"


@dataclass(eq=False)
class BundleInvalid(BundleError):
    """A file of the bundle does not hold what it should."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} is not valid: {self.reason}"


@dataclass(eq=False)
class GraphRefused(BundleError):
    """The graph refers to something beyond itself and the standard operators."""

    reason: str

    def __str__(self) -> str:
        return f"model.onnx is refused: {self.reason}"


@dataclass(eq=False)
class EnvironmentUnknown(ServingError):
    """Gymnasium cannot make the environment."""

    env_id: str
    reason: str

    def __str__(self) -> str:
        return f"cannot make the environment '{self.env_id}': {self.reason}"

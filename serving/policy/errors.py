"""Errors of bundles, spaces, environments and policies."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

from serving.errors import HttpError, RequestError, ServingError


@dataclass(eq=False)
class OptionInvalid(RequestError):
    """The option `name` of the request has an invalid value."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "option_invalid"
    template = '"{name}" is {found}, expected {expected}'

    name: str
    found: str
    expected: str


@dataclass(eq=False)
class ExploreUnsupported(RequestError):
    """The request asks for a sampled action, and the bundle's graph computes only greedy ones."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "explore_unsupported"
    template = 'this version computes greedy actions only, because its graph has no noise input; leave "explore" out'


@dataclass(eq=False)
class StateInvalid(RequestError):
    """The state at `path` did not come from this server or was changed; `reason` has the details."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "state_invalid"
    template = "{path} {reason}; send the state of the last response, or leave it out to begin with the initial state"

    path: str
    reason: str


class PolicyFault(HttpError):
    """Base of the errors that the served version may be at fault for: another version then answers the request."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def details(self) -> str:
        """What the log shows."""
        return str(self)


@dataclass(eq=False)
class PolicyFailed(PolicyFault):
    """The policy could not compute an action. The log shows `reason`, the client does not see it."""

    code = "policy_failed"
    template = "the policy failed to compute an action; the server's log has the reason"

    reason: str

    @property
    def details(self) -> str:
        """What the log shows."""
        return self.reason


@dataclass(eq=False)
class InferenceTimeout(PolicyFault):
    """One call of the policy took longer than `limit_s` seconds and was stopped."""

    code = "inference_timeout"
    template = "the policy computed for longer than {limit_s:g} s and was stopped"

    limit_s: float


@dataclass(eq=False)
class OutputNotFinite(PolicyFault):
    """The output `name` of the policy's graph holds NaN or an infinity."""

    code = "output_not_finite"
    template = "the policy computed numbers that are not finite, in its output '{name}'"

    name: str


@dataclass(eq=False)
class VersionCrashed(PolicyFault):
    """The version ended the process of another replica, which may be because of this request."""

    code = "crashed"
    template = "the policy ended the process of another replica"


FAULT_CODES = tuple(each.code for each in (PolicyFailed, InferenceTimeout, OutputNotFinite, VersionCrashed))
"""The codes of the faults of a version."""


@dataclass(eq=False)
class ProviderUnavailable(ServingError):
    """The execution provider cannot be used on this machine."""

    template = (
        "--execution-provider {provider} needs {needed}. Install it as docs/how-to/use-a-gpu.md describes, or omit the "
        "option to compute on the CPU"
    )

    provider: str
    needed: str


class BundleError(ServingError):
    """Base of the reasons not to serve a bundle."""

    code: ClassVar[str]
    """The label of `policy_versions_rejected` and of the rejected version in `/model`."""


@dataclass(eq=False)
class BundleFileMissing(BundleError):
    """A file of the bundle cannot be read."""

    code = "bundle_file_missing"
    template = "cannot read {file} of {where}: {reason}"

    file: str
    where: str
    reason: str


@dataclass(eq=False)
class BundleInvalid(BundleError):
    """A file of the bundle has invalid content."""

    code = "bundle_invalid"
    template = "{file} is not valid: {reason}"

    file: str
    reason: str


@dataclass(eq=False)
class FormatUnknown(BundleError):
    """policy.json is of a format that a later release introduced."""

    code = "format_unknown"
    template = "policy.json is of format {found}; this server knows {known}: upgrade it first"

    found: int
    known: str


@dataclass(eq=False)
class SpaceUnsupported(BundleError):
    """A space, or the JSON form of one, is of an unsupported type."""

    code = "space_unsupported"
    template = "unsupported space: {space}; supported are Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"

    space: str


@dataclass(eq=False)
class GraphRejected(BundleError):
    """The graph refers to something besides itself and the standard operators."""

    code = "graph_refused"
    template = "model.onnx is rejected: {reason}"

    reason: str


@dataclass(eq=False)
class ObjectUnknown(ServingError):
    """`name` does not refer to anything that can be imported."""

    template = "cannot import '{name}': {reason}"

    name: str
    reason: str


@dataclass(eq=False)
class EnvironmentNotMade(ServingError):
    """The environment or one of its wrappers raised an exception when it was created."""

    template = "cannot make the environment '{env_id}': {reason}"

    env_id: str
    reason: str


@dataclass(eq=False)
class EnvironmentNotDrawn(ServingError):
    """The environment returned no image, or raised an exception instead."""

    template = "render() {reason}"

    reason: str


class EnvironmentUnknown(EnvironmentNotMade):
    """Gymnasium has no such environment, or a package that it needs is not installed."""

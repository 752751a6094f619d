"""Everything that can go wrong in serving, and what HTTP calls it.

Each error is a dataclass: its fields are the facts, `__str__` is what a person reads. They survive pickling,
because Ray carries them between processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from http import HTTPStatus
from typing import Any


class ServingError(Exception):
    """Base of the errors that serving raises on purpose; its text is fit to be shown to a user."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own replays positional arguments only; the fields may have been given by name.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


# --- requests --------------------------------------------------------------------------------------------


class RequestError(ServingError):
    """A request that cannot be answered as it stands."""


@dataclass(eq=False)
class BodyNotJson(RequestError):
    """The body is not JSON; `reason` is the parser's."""

    reason: str

    def __str__(self) -> str:
        return f'the body is not JSON: {self.reason}; send {{"observation": [...]}}'


@dataclass(eq=False)
class BodyNotObject(RequestError):
    """The body is JSON, but no object; `found` describes it."""

    found: str

    def __str__(self) -> str:
        return f'the body is {self.found}, expected an object like {{"observation": [...]}}'


@dataclass(eq=False)
class BodyTooLarge(RequestError):
    """The body exceeds `limit` bytes."""

    limit: int

    def __str__(self) -> str:
        return f"the body is larger than {self.limit} bytes; send fewer observations per request"


@dataclass(eq=False)
class Overloaded(ServingError):
    """The replica holds `limit` requests, which is all it may."""

    limit: int

    def __str__(self) -> str:
        return f"the server holds {self.limit} requests, as many as it may; try again in a second"


@dataclass(eq=False)
class ObservationMissing(RequestError):
    """Neither of the two keys is there; `keys` are those that are."""

    keys: Sequence[str]

    def __str__(self) -> str:
        found = ", ".join(f'"{key}"' for key in self.keys) or "no key"
        return f'the request has {found}, expected "observation" (one) or "observations" (a list of them)'


@dataclass(eq=False)
class ObservationAmbiguous(RequestError):
    """Both `observation` and `observations` are there."""

    def __str__(self) -> str:
        return 'the request has both "observation" and "observations", expected one of them'


@dataclass(eq=False)
class KeyUnknown(RequestError):
    """The request has a key that means nothing beside those that it also has; `known` are those that would."""

    key: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f'the request has an unknown key "{self.key}", expected only {", ".join(self.known)}'


@dataclass(eq=False)
class OptionInvalid(RequestError):
    """The request's option `name` has no value that it can have."""

    name: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f'"{self.name}" is {self.found}, expected {self.expected}'


@dataclass(eq=False)
class ExploreUnsupported(RequestError):
    """The request asks for a sampled action, and the bundle's graph is greedy only."""

    def __str__(self) -> str:
        return 'this version answers greedily only: its graph takes no noise; leave "explore" out'


@dataclass(eq=False)
class StateInvalid(RequestError):
    """The state at `path` did not come from this server, or was changed since; `reason` says why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.path} {self.reason}; send back what the last answer held, or leave it out to begin with the "
            f"initial state"
        )


def _at(path: str, verb: str) -> str:
    # "observation is null", but "observation.arm.position: null".
    return f"{path}:" if "." in path else f"{path} {verb}"


@dataclass(eq=False)
class ObservationShape(RequestError):
    """The observation at `path` has another shape than the space; None stands for ragged lists."""

    path: str
    shape: tuple[int, ...] | None
    expected: str

    def __str__(self) -> str:
        found = "lists of different lengths" if self.shape is None else f"shape {self.shape}"
        return f"{_at(self.path, 'has')} {found}, expected {self.expected}"


@dataclass(eq=False)
class ObservationType(RequestError):
    """The value at `path` is no number of the space's type."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{_at(self.path, 'is')} {self.found}, expected {self.expected}"


@dataclass(eq=False)
class ObservationRange(RequestError):
    """The integer at `path` is none of those that the space counts."""

    path: str
    found: int
    low: int
    high: int

    def __str__(self) -> str:
        return f"{_at(self.path, 'is')} {self.found}, expected an integer from {self.low} to {self.high}"


@dataclass(eq=False)
class ObservationNotFinite(RequestError):
    """The value at `path` is NaN, infinite, or too large for the space's type."""

    path: str
    found: str
    dtype: str

    def __str__(self) -> str:
        return f"{_at(self.path, 'is')} {self.found}, expected a finite {self.dtype}"


@dataclass(eq=False)
class ObservationKeyMissing(RequestError):
    """The object at `path` lacks a key of the Dict space."""

    path: str
    key: str
    expected: Sequence[str]

    def __str__(self) -> str:
        return f'{_at(self.path, "has")} no key "{self.key}", expected {", ".join(self.expected)}'


@dataclass(eq=False)
class ObservationKeyUnknown(RequestError):
    """The object at `path` has a key that the Dict space lacks."""

    path: str
    key: str
    expected: Sequence[str]

    def __str__(self) -> str:
        return f'{_at(self.path, "has")} an unknown key "{self.key}", expected {", ".join(self.expected)}'


@dataclass(eq=False)
class ObservationLength(RequestError):
    """The list at `path` has more or fewer elements than the Tuple space."""

    path: str
    found: int
    expected: int

    def __str__(self) -> str:
        return f"{_at(self.path, 'has')} a list of {self.found}, expected {self.expected} elements"


@dataclass(eq=False)
class ObservationEncoding(RequestError):
    """The base64 form of the array at `path` cannot be decoded; `reason` says why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False)
class PathUnknown(RequestError):
    """No such path under the route prefix."""

    path: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f"no such path: {self.path}; there are {', '.join(self.known)}"


@dataclass(eq=False)
class MethodNotAllowed(RequestError):
    """The path is there, the method is not."""

    method: str
    path: str
    allowed: Sequence[str]

    def __str__(self) -> str:
        return f"{self.method} is not allowed on {self.path}, use {' or '.join(self.allowed)}"


@dataclass(eq=False)
class MediaTypeUnsupported(RequestError):
    """The body of an invocation is of another type, or in another encoding; `found` is the header's content."""

    found: str

    def __str__(self) -> str:
        found = f'"{self.found[:100]}"' if self.found else "missing"
        return f"the content type is {found}, expected application/json or text/csv, in UTF-8"


@dataclass(eq=False)
class InvocationMalformed(RequestError):
    """The body of an invocation holds no observations in any of MLflow's forms; `reason` says why."""

    reason: str

    def __str__(self) -> str:
        return f"cannot read the invocation: {self.reason}"


@dataclass(eq=False)
class InvocationInvalid(RequestError):
    """An invocation's observations do not fit the model's signature, or are none of its space; `reason` says why."""

    reason: str

    def __str__(self) -> str:
        return f"the invocation does not fit the model: {self.reason}"


@dataclass(eq=False)
class InferenceInvalid(RequestError):
    """What stands at `path` of a request of the Open Inference Protocol is not what the protocol has there."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{_at(self.path, 'is')} {self.found}, expected {self.expected}"


@dataclass(eq=False)
class ModelNotServed(RequestError):
    """The request names another model than the one served here."""

    name: str
    served: str

    def __str__(self) -> str:
        return f"no model '{self.name}' is served here, only '{self.served}'"


@dataclass(eq=False)
class VersionNotServed(RequestError):
    """The request names another version than the one served here, as it does after a promotion."""

    name: str
    version: str
    served: str

    def __str__(self) -> str:
        return f"version {self.version} of '{self.name}' is not served here, version {self.served} is: name it, or none"


@dataclass(eq=False)
class ObservationsTooMany(RequestError):
    """The request holds more than `limit` observations."""

    found: int
    limit: int

    def __str__(self) -> str:
        return f"the request holds {self.found} observations, expected at most {self.limit}; send several requests"


@dataclass(eq=False)
class JsonTooDeep(RequestError):
    """Lists and objects stand in each other, more than `limit` deep."""

    limit: int

    def __str__(self) -> str:
        return f"the body nests lists and objects more than {self.limit} deep; no observation needs that"


@dataclass(eq=False)
class Unauthorized(RequestError):
    """The server asks for a token; the request has none, or another one if `given`."""

    given: bool

    def __str__(self) -> str:
        found = "another token than the server's" if self.given else "no token"
        return f"the request brings {found}; send the header Authorization: Bearer TOKEN"


@dataclass(eq=False)
class PolicyFailed(ServingError):
    """The policy could not compute an action; `reason` goes to the log, not to the client."""

    reason: str

    def __str__(self) -> str:
        return "the policy failed to compute an action; the server's log says why"


@dataclass(eq=False)
class PlayBusy(ServingError):
    """All of the replica's `limit` sessions of /play are taken."""

    limit: int

    def __str__(self) -> str:
        return f"{self.limit} watch already, as many as may at once; close another page, or try again later"


RESPONSES: dict[type[ServingError], tuple[HTTPStatus, str]] = {
    BodyNotJson: (HTTPStatus.BAD_REQUEST, "body_not_json"),
    BodyNotObject: (HTTPStatus.UNPROCESSABLE_ENTITY, "body_not_object"),
    BodyTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large"),
    ObservationMissing: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_missing"),
    ObservationAmbiguous: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_ambiguous"),
    KeyUnknown: (HTTPStatus.UNPROCESSABLE_ENTITY, "key_unknown"),
    OptionInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "option_invalid"),
    ExploreUnsupported: (HTTPStatus.UNPROCESSABLE_ENTITY, "explore_unsupported"),
    StateInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "state_invalid"),
    ObservationShape: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_shape"),
    ObservationType: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_type"),
    ObservationNotFinite: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_not_finite"),
    ObservationRange: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_range"),
    ObservationKeyMissing: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_key_missing"),
    ObservationKeyUnknown: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_key_unknown"),
    ObservationLength: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_length"),
    ObservationEncoding: (HTTPStatus.UNPROCESSABLE_ENTITY, "observation_encoding"),
    PathUnknown: (HTTPStatus.NOT_FOUND, "path_unknown"),
    MethodNotAllowed: (HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed"),
    MediaTypeUnsupported: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported"),
    InvocationMalformed: (HTTPStatus.BAD_REQUEST, "invocation_malformed"),
    InvocationInvalid: (HTTPStatus.BAD_REQUEST, "invocation_invalid"),
    InferenceInvalid: (HTTPStatus.BAD_REQUEST, "inference_invalid"),
    ModelNotServed: (HTTPStatus.NOT_FOUND, "model_not_served"),
    VersionNotServed: (HTTPStatus.NOT_FOUND, "version_not_served"),
    ObservationsTooMany: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "observations_too_many"),
    JsonTooDeep: (HTTPStatus.BAD_REQUEST, "json_too_deep"),
    Unauthorized: (HTTPStatus.UNAUTHORIZED, "unauthorized"),
    PolicyFailed: (HTTPStatus.INTERNAL_SERVER_ERROR, "policy_failed"),
    Overloaded: (HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"),
    PlayBusy: (HTTPStatus.SERVICE_UNAVAILABLE, "play_busy"),
}
"""What HTTP answers to each error: the status, and the `code` in the body."""


SPACES = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"


# --- bundles ---------------------------------------------------------------------------------------------


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
class BundleFileMissing(BundleError):
    """The bundle lacks a file; `reason` says what was tried."""

    file: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"cannot read {self.file} of {self.where}: {self.reason}"


@dataclass(eq=False)
class DigestMissing(BundleError):
    """The registry does not vouch for the file, so it isn't one of ours."""

    file: str
    name: str
    version: int

    def __str__(self) -> str:
        return (
            f"version {self.version} of '{self.name}' has no tag 'sha256.{self.file}', so its files cannot "
            f"be verified. Register it with: python -m pipeline train"
        )


@dataclass(eq=False)
class DigestMismatch(BundleError):
    """The file is not the one that was registered."""

    file: str
    name: str
    version: int
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.file} of version {self.version} of '{self.name}' was changed after it was registered: "
            f"sha256 is {self.found[:12]}..., the registry says {self.expected[:12]}..."
        )


@dataclass(eq=False)
class CandidateRefused(BundleError):
    """The bundle failed in the process where it was tried; `reason` says how."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class SpacesDiffer(BundleError):
    """The bundle expects another space than the clients of the one being served."""

    kind: str
    served: str
    found: str

    def __str__(self) -> str:
        return (
            f"its {self.kind} space is {self.found}, the one being served is {self.served}. Clients would break: "
            f"restart the server to serve it, or allow it with allow_space_change"
        )


@dataclass(eq=False)
class CacheUnwritable(ServingError):
    """The bundle cache cannot be written."""

    directory: str
    reason: str

    def __str__(self) -> str:
        return f"cannot write the bundle cache {self.directory}: {self.reason}. Choose another with --cache-dir"


# --- registry --------------------------------------------------------------------------------------------


class RegistryError(ServingError):
    """The registry has no answer, or not the one that was hoped for."""


@dataclass(eq=False)
class ModelUriInvalid(RegistryError):
    """Not a URI of a registered model."""

    uri: str

    def __str__(self) -> str:
        return (
            f"'{self.uri}' names no registered model, expected models:/NAME/STAGE, models:/NAME@ALIAS, "
            f"models:/NAME/NUMBER or models:/NAME/latest"
        )


@dataclass(eq=False)
class TrackingServerUnreachable(RegistryError):
    """Nothing healthy answers at the tracking URI."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return (
            f"no MLflow server answers at {self.uri} ({self.reason}). Start it, or set MLFLOW_TRACKING_URI "
            f"to the one you mean"
        )


@dataclass(eq=False)
class RegistryFailed(RegistryError):
    """MLflow refused or failed; `reason` is its own."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return f"the model registry at {self.uri} failed: {self.reason}"


@dataclass(eq=False)
class ModelUnknown(RegistryError):
    """No model of that name is registered."""

    name: str
    registry: str
    registered: Sequence[str]

    def __str__(self) -> str:
        known = ", ".join(f"'{name}'" for name in self.registered) or "none yet"
        return (
            f"No model '{self.name}' is registered at {self.registry} (registered: {known}). Train one: "
            f"python -m pipeline train"
        )


@dataclass(eq=False)
class VersionMissing(RegistryError):
    """The version asked for is not there; `asked` completes "No version of 'x' ..."; None where nobody listed them."""

    name: str
    asked: str
    remedy: str
    versions: Sequence[str] | None

    def __str__(self) -> str:
        known = f" Versions: {', '.join(self.versions) or 'none'}." if self.versions is not None else ""
        return f"No version of '{self.name}' {self.asked}. {self.remedy}{known}"


# --- the server ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class PortTaken(ServingError):
    """Another process listens there."""

    host: str
    port: int
    reason: str
    option: str = "--port"

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port} ({self.reason}). Choose another port with {self.option}"


@dataclass(eq=False)
class GrpcNotStarted(ServingError):
    """The cluster's Serve was started without gRPC, or with another's, which cannot be changed while it runs."""

    function: str

    def __str__(self) -> str:
        return (
            f"the cluster runs a Serve without gRPC. Leave --grpc-port out, or restart Serve with grpc_options whose "
            f"grpc_servicer_functions are [{self.function}]"
        )


@dataclass(eq=False)
class TokenFileInvalid(ServingError):
    """The file with the bearer token holds none; `reason` says why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return (
            f"cannot take the token from {self.file}: {self.reason}. Write one into it: "
            f"(umask 077 && openssl rand -hex 32 > {self.file})"
        )


@dataclass(eq=False)
class ClusterUnreachable(ServingError):
    """No Ray cluster lets this process in at the address."""

    address: str
    reason: str

    def __str__(self) -> str:
        return (
            f"cannot join the Ray cluster at {self.address}: {self.reason}. Where it asks for a token, set "
            f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )


@dataclass(eq=False)
class DeploymentFailed(ServingError):
    """A replica did not come up; `details` holds what Ray Serve said."""

    reason: str
    details: str

    def __str__(self) -> str:
        return f"the policy could not be deployed: {self.reason}"


@dataclass(eq=False)
class ServerUnreachable(ServingError):
    """The client reached no policy server."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"no policy server answers at {self.url} ({self.reason}). Start one: python -m serving run"


@dataclass(eq=False)
class ServerUrlInvalid(ServingError):
    """What the client was given is no URL of HTTP."""

    url: str

    def __str__(self) -> str:
        return f"'{self.url}' is no URL of a policy server, expected one like http://127.0.0.1:8000/cartpole-ppo"


@dataclass(eq=False)
class RequestRefused(ServingError):
    """The policy server refused the client's request."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"the server answered {self.status} {self.code}: {self.message}"


@dataclass(eq=False)
class EnvironmentUnknown(ServingError):
    """Gymnasium cannot make the environment."""

    env_id: str
    reason: str

    def __str__(self) -> str:
        return f"cannot make the environment '{self.env_id}': {self.reason}"


@dataclass(eq=False)
class EnvironmentFailed(ServingError):
    """An environment that is played in a process of its own went wrong; `reason` is its own."""

    reason: str

    def __str__(self) -> str:
        return f"the environment failed: {self.reason}"

"""MLflow's scoring protocol, for clients of `mlflow models serve`.

`POST /invocations`, `GET /ping`, `GET /version` (mlflow.org/docs/latest/ml/deployment/deploy-model-locally).
"""

import importlib.metadata
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import numpy as np
import orjson

from serving.experience.journal import records
from serving.policy.policy import Policy
from serving.policy.spaces import Json, describe
from serving.policy.state_tokens import StateCodec
from serving.policy.tensors import Rows, Tensors
from serving.protocols.episodes import EpisodeReader, episode_of
from serving.protocols.errors import BodyNotJson
from serving.protocols.json_body import noise_for, parse
from serving.protocols.mlflow_scoring.errors import InvocationInvalid, InvocationMalformed, MediaTypeUnsupported
from serving.protocols.mlflow_scoring.paths import scoring_paths
from serving.protocols.mlflow_scoring.signature import Signature
from serving.protocols.mlflow_scoring.tables import Table
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import ErrorResponse, Protocol, Request, Response
from serving.registry.model_version import ModelVersion
from serving.replica.limits import MAX_OBSERVATIONS
from serving.replica.served_policy import ServedPolicy

INVOCATIONS, PING, VERSION = "/invocations", "/ping", "/version"
METHODS = {INVOCATIONS: ("POST",), PING: ("GET", "HEAD"), VERSION: ("GET", "HEAD")}

JSON_TYPE, CSV_TYPE = "application/json", "text/csv"

FORMS: dict[str, Callable[[Signature, Json, int], Tensors]] = {
    "inputs": Signature.read_inputs,
    "instances": Signature.read_instances,
    "dataframe_split": lambda signature, value, limit: signature.read_table(Table.from_split(value, limit)),
    "dataframe_records": lambda signature, value, limit: signature.read_table(Table.from_records(value, limit)),
}
"""The readers of a JSON body by its key, with the maximum number of observations.

A body has exactly one of these keys. `params` and other keys are ignored."""

LANGUAGE_MODEL_KEYS = ("messages", "prompt", "input")
"""MLflow handles a body with one of these keys as a request to a language model."""

ERROR_CODES = {
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL_ERROR",
    HTTPStatus.SERVICE_UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
}
"""MLflow's error codes of server errors."""


class ScoringProtocol(Protocol):
    """Answers the paths of `mlflow models serve` with the served version.

    Args:
        max_observations: The maximum number of observations in one request.
        episodes: Reads which episode a request names.
    """

    def __init__(
        self,
        max_observations: int = MAX_OBSERVATIONS,
        episodes: EpisodeReader = EpisodeReader(),  # noqa: B008 - immutable
    ) -> None:
        self._max_observations, self._episodes = max_observations, episodes

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path accepts."""
        return METHODS.get(path, ())

    def prepare(self, served: ServedPolicy) -> None:
        """Make the codec of a version."""
        served.prepared(ScoringCodec)

    async def answer(self, request: Request, served: ServedPolicy) -> Response:
        """Answer a request. Raises ServingError."""
        if request.path == PING:
            return Response(b"\n")
        if request.path == VERSION:
            return Response(importlib.metadata.version("mlflow").encode())
        codec = served.prepared(ScoringCodec)
        rows = codec.decode(request, self._max_observations)
        origin = self._episodes.of_headers(records.INVOCATIONS, request.scope["headers"]).origin(len(rows))
        if origin is not None and origin.explores:
            noise, origin = noise_for({}, served.policy, len(rows), origin)
            rows = Rows(rows.tensors | noise, rows.details, rows.reset)
        return Response(codec.encode(cast("Rows", await served.act(rows, origin))))

    def episode(self, request: Request) -> str | None:
        """Return the name of the episode in the header of a request for predictions."""
        return episode_of(request.scope["headers"]) if request.path == INVOCATIONS else None

    def error_body(self, error: ErrorResponse) -> bytes:
        """Return the JSON body of an error in MLflow's form."""
        invalid = error.code == InvocationInvalid.code
        error_code = "INVALID_PARAMETER_VALUE" if invalid else ERROR_CODES.get(error.status, "BAD_REQUEST")
        return orjson.dumps({"error_code": error_code, "message": error.message, **error.identity})

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return scoring_paths(served)


class ScoringCodec:
    """Decodes requests and encodes predictions for one version."""

    def __init__(self, policy: Policy, version: ModelVersion) -> None:  # noqa: ARG002 - as `ServedPolicy.prepared` calls it
        self._signature = Signature(policy.observation_space)
        self._states = StateCodec(policy.interface.state_shapes)

    def decode(self, request: Request, max_observations: int) -> Rows:
        """Return the observations of a request, each as the first step of an episode. Raises RequestError."""
        if _media_type(request) == CSV_TYPE:
            tensors = self._signature.read_table(Table.from_csv(request.body, max_observations))
        else:
            form, value = _form(request.body)
            tensors = FORMS[form](self._signature, value, max_observations)
        batch = len(next(iter(tensors.values())))
        initial = self._states.initial(batch)
        return Rows(tensors | initial, details=np.ones(batch, np.bool_), reset=np.zeros(batch, np.bool_))

    def encode(self, rows: Rows) -> bytes:
        """Return all outputs of the graph by name, in JSON. The actions are finite: JSON has no NaN."""
        predictions = {name: tensor.tolist() for name, tensor in rows.tensors.items()}
        return orjson.dumps({"predictions": predictions})


def _media_type(request: Request) -> str:
    """Return JSON_TYPE or CSV_TYPE. Raises MediaTypeUnsupported for other media types and character sets."""
    content_type = request.headers.get(b"content-type", b"").decode("latin-1")
    if content_type == JSON_TYPE:
        return JSON_TYPE
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    if media_type not in {JSON_TYPE, CSV_TYPE} or any(each.lower() != "charset=utf-8" for each in parameters):
        raise MediaTypeUnsupported(f'"{content_type[:100]}"' if content_type else "missing")
    return media_type


def _form(body: bytes) -> tuple[str, Json]:
    """Return the key of FORMS in a JSON body, and its value. Raises InvocationMalformed, InvocationInvalid."""
    try:
        request = parse(body)
    except BodyNotJson as error:
        raise InvocationMalformed(f"the body is not JSON: {error.reason}") from None
    if type(request) is not dict:
        raise InvocationMalformed(f"the body is {describe(request)}, expected an object with one of {', '.join(FORMS)}")
    for key in LANGUAGE_MODEL_KEYS:
        if key in request:
            raise InvocationInvalid(f'the key "{key}" marks a request to a language model; remove it')
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        found = " and ".join(forms) or "no observations"
        raise InvocationMalformed(f"the request has {found}, expected one of {', '.join(FORMS)}")
    return forms[0], request[forms[0]]

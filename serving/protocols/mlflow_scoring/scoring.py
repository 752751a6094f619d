"""MLflow's scoring protocol: what `mlflow models serve` answers, for clients that were written for it.

`POST /invocations`, `GET /ping`, `GET /version` (mlflow.org/docs/latest/ml/deployment/deploy-model-locally).
"""

import importlib.metadata
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import numpy as np
import orjson

from serving.policy.policy import Policy
from serving.policy.rows import Rows, Tensors
from serving.policy.spaces import ACTION, Json, leaves
from serving.policy.state_tokens import StateCodec
from serving.protocols.errors import BodyNotJson
from serving.protocols.mlflow_scoring.errors import InvocationInvalid, InvocationMalformed, MediaTypeUnsupported
from serving.protocols.mlflow_scoring.paths import scoring_paths
from serving.protocols.mlflow_scoring.signature import Signature
from serving.protocols.mlflow_scoring.tables import Frame
from serving.protocols.native.actions import leaf_writer
from serving.protocols.native.json_codec import parse
from serving.protocols.native.leaf_reader import describe
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import Act, Answer, Refusal, Request
from serving.replica.served_policy import ServedPolicy

INVOCATIONS, PING, VERSION = "/invocations", "/ping", "/version"
METHODS = {INVOCATIONS: ("POST",), PING: ("GET", "HEAD"), VERSION: ("GET", "HEAD")}

JSON_TYPE, CSV_TYPE = "application/json", "text/csv"

FORMS: dict[str, Callable[[Signature, Json], Tensors]] = {
    "inputs": Signature.read_inputs,
    "instances": Signature.read_instances,
    "dataframe_split": lambda signature, value: signature.read_frame(Frame.of_split(value)),
    "dataframe_records": lambda signature, value: signature.read_frame(Frame.of_records(value)),
}
"""The keys of a JSON body that hold observations, one of them in each; `params` and others are ignored."""

LANGUAGE_MODEL_KEYS = ("messages", "prompt", "input")
"""Keys by which MLflow takes a request for one to a language model, whatever else it holds."""

ERROR_CODES = {
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL_ERROR",
    HTTPStatus.SERVICE_UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
}
"""MLflow's names for what is not the request's fault."""


class ScoringProtocol:
    """Answers as `mlflow models serve` does for the version that is served."""

    def __init__(self) -> None:
        self._version = importlib.metadata.version("mlflow").encode()
        self._codec: ScoringCodec | None = None

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path takes."""
        return METHODS.get(path, ())

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Answer:
        """Answer a request. Raises ServingError."""
        if request.path == PING:
            return Answer(b"\n")
        if request.path == VERSION:
            return Answer(self._version)
        codec = self._codec_for(served.policy)
        return Answer(codec.encode(cast("Rows", await act(codec.decode(request)))))

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the body that tells of an error."""
        invalid = refusal.code == "invocation_invalid"
        error_code = "INVALID_PARAMETER_VALUE" if invalid else ERROR_CODES.get(refusal.status, "BAD_REQUEST")
        return orjson.dumps({"error_code": error_code, "message": refusal.message})

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return scoring_paths(served)

    def _codec_for(self, policy: Policy) -> "ScoringCodec":
        if self._codec is None or self._codec.policy is not policy:
            self._codec = ScoringCodec(policy)
        return self._codec


class ScoringCodec:
    """Decodes requests and encodes predictions for one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._signature = Signature(policy.observation_space)
        self._states = StateCodec(policy.interface.state_shapes)
        self._writers = {leaf.tensor(ACTION): leaf_writer(leaf) for leaf in leaves(policy.action_space)}

    def decode(self, request: Request) -> Rows:
        """Return the observations of a request, each at the beginning of an episode. Raises RequestError."""
        if _media_type(request) == CSV_TYPE:
            tensors = self._signature.read_frame(Frame.of_csv(request.body))
        else:
            form, value = _form(request.body)
            tensors = FORMS[form](self._signature, value)
        batch = len(next(iter(tensors.values())))
        return Rows(
            tensors | self._states.initial(batch) if self._states.recurrent else tensors,
            details=np.ones(batch, np.bool_),
            reset=np.zeros(batch, np.bool_),
        )

    def encode(self, rows: Rows) -> bytes:
        """Return all outputs of the graph by name, in JSON. Raises PolicyFailed if the actions are not finite."""
        writers = self._writers
        predictions = {
            name: writers[name](tensor) if name in writers else tensor.tolist() for name, tensor in rows.tensors.items()
        }
        return orjson.dumps({"predictions": predictions})


def _media_type(request: Request) -> str:
    """Return the media type, if it is one of the two. Raises MediaTypeUnsupported."""
    content_type = request.headers.get(b"content-type", b"").decode("latin-1")
    if content_type == JSON_TYPE:
        return JSON_TYPE
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    named = (parameter.partition("=") for parameter in parameters)
    if media_type not in {JSON_TYPE, CSV_TYPE} or any(
        name != "charset" or value.lower() != "utf-8" for name, _, value in named
    ):
        raise MediaTypeUnsupported(content_type)
    return media_type


def _form(body: bytes) -> tuple[str, Json]:
    """Return which of FORMS a JSON body has, and its value. Raises InvocationMalformed, InvocationInvalid."""
    try:
        request = parse(body)
    except BodyNotJson as error:
        raise InvocationMalformed(f"the body is not JSON: {error.reason}") from None
    if type(request) is not dict:
        raise InvocationMalformed(f"the body is {describe(request)}, expected an object with one of {', '.join(FORMS)}")
    for key in LANGUAGE_MODEL_KEYS:
        if key in request:
            raise InvocationInvalid(f'"{key}" is what requests to language models have; leave it out')
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        raise InvocationMalformed(
            f"the request has {' and '.join(forms) or 'none'}, expected one of {', '.join(FORMS)}"
        )
    return forms[0], request[forms[0]]

"""Errors in requests of the Open Inference Protocol."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import RequestError
from serving.protocols.errors import RequestPartError


class InferenceInvalid(RequestPartError):
    """The part of a request at `path` does not conform to the protocol, or to the model's tensors."""

    status = HTTPStatus.BAD_REQUEST
    code = "inference_invalid"


@dataclass(eq=False)
class ModelNotServed(RequestError):
    """The request names another model than the served one."""

    status = HTTPStatus.NOT_FOUND
    code = "model_not_served"
    template = "no model '{name}' is served here, only '{served}'"

    name: str
    served: str


@dataclass(eq=False)
class VersionNotServed(RequestError):
    """The request names another version than the served one, for example after a promotion."""

    status = HTTPStatus.NOT_FOUND
    code = "version_not_served"
    template = "version {version} of '{name}' is not served here; request version {served}, or omit the version"

    name: str
    version: str
    served: str

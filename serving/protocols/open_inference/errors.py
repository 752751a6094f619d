"""Errors in requests of the Open Inference Protocol."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import RequestError
from serving.protocols.errors import located


@dataclass(eq=False)
class InferenceInvalid(RequestError):
    """What stands at `path` of a request of the Open Inference Protocol is not what the protocol has there."""

    status = HTTPStatus.BAD_REQUEST
    code = "inference_invalid"

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{located(self.path, 'is')} {self.found}, expected {self.expected}"


@dataclass(eq=False)
class ModelNotServed(RequestError):
    """The request names another model than the one served here."""

    status = HTTPStatus.NOT_FOUND
    code = "model_not_served"

    name: str
    served: str

    def __str__(self) -> str:
        return f"no model '{self.name}' is served here, only '{self.served}'"


@dataclass(eq=False)
class VersionNotServed(RequestError):
    """The request names another version than the one served here, as it does after a promotion."""

    status = HTTPStatus.NOT_FOUND
    code = "version_not_served"

    name: str
    version: str
    served: str

    def __str__(self) -> str:
        return f"version {self.version} of '{self.name}' is not served here, version {self.served} is: name it, or none"

"""Errors in requests of MLflow's scoring protocol."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import RequestError


@dataclass(eq=False)
class MediaTypeUnsupported(RequestError):
    """The body of an invocation is of another type, or in another encoding; `found` is the header's content."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "media_type_unsupported"

    found: str

    def __str__(self) -> str:
        found = f'"{self.found[:100]}"' if self.found else "missing"
        return f"the content type is {found}, expected application/json or text/csv, in UTF-8"


@dataclass(eq=False)
class InvocationMalformed(RequestError):
    """The body of an invocation holds no observations in any of MLflow's forms; `reason` says why."""

    status = HTTPStatus.BAD_REQUEST
    code = "invocation_malformed"

    reason: str

    def __str__(self) -> str:
        return f"cannot read the invocation: {self.reason}"


@dataclass(eq=False)
class InvocationInvalid(RequestError):
    """An invocation's observations do not fit the model's signature, or are none of its space; `reason` says why."""

    status = HTTPStatus.BAD_REQUEST
    code = "invocation_invalid"

    reason: str

    def __str__(self) -> str:
        return f"the invocation does not fit the model: {self.reason}"

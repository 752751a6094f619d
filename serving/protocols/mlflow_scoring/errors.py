"""Errors in requests of MLflow's scoring protocol."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import RequestError


@dataclass(eq=False)
class MediaTypeUnsupported(RequestError):
    """The media type or the character set of an invocation is not supported; `found` describes its Content-Type."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "media_type_unsupported"
    template = "the content type is {found}, expected application/json or text/csv, in UTF-8"

    found: str


@dataclass(eq=False)
class InvocationMalformed(RequestError):
    """The body of an invocation has none of MLflow's forms."""

    status = HTTPStatus.BAD_REQUEST
    code = "invocation_malformed"
    template = "cannot read the invocation: {reason}"

    reason: str


@dataclass(eq=False)
class InvocationInvalid(RequestError):
    """The values of an invocation do not fit the model's signature, or are not observations of its space."""

    status = HTTPStatus.BAD_REQUEST
    code = "invocation_invalid"
    template = "the invocation does not fit the model: {reason}"

    reason: str

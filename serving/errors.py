"""The bases of all errors of this package. Each room defines its own errors in its `errors.py`.

Each error is a dataclass: its fields are the facts and `__str__` is the message. Errors survive pickling, because Ray
carries them between processes.
"""

from collections.abc import Iterator
from dataclasses import fields
from http import HTTPStatus
from typing import Any, ClassVar


class ServingError(Exception):
    """Base of the errors that this package raises on purpose; the message is fit to be shown to a user."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own replays positional arguments only; the fields may have been given by name.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


class HttpError(ServingError):
    """Base of the errors that an HTTP client receives; each concrete class declares `status` and `code`."""

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]


class RequestError(HttpError):
    """A request that cannot be answered as it is; its status is 4xx."""


def http_errors(base: type[HttpError] = HttpError) -> Iterator[type[HttpError]]:
    """Yield the concrete subclasses of HttpError that the imported modules define."""
    for error in base.__subclasses__():
        if hasattr(error, "code"):
            yield error
        yield from http_errors(error)

"""Base classes of the errors of this package. Each room defines its own errors in its `errors.py`.

Each error is a dataclass: its fields hold the facts, and `template` turns them into the message. Errors survive
pickling, because Ray carries them between processes.
"""

from collections.abc import Iterator
from dataclasses import fields
from http import HTTPStatus
from typing import Any, ClassVar


class ExpectedError(Exception):
    """Base of the errors that both packages raise on purpose. Their messages can be shown to a user."""

    template: ClassVar[str]
    """The message, a format string of the fields. Classes whose message needs logic define `__str__` instead."""

    def __str__(self) -> str:
        return self.template.format(**vars(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ replays only positional arguments, and the fields may have been given by name.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


class ServingError(ExpectedError):
    """Base of the errors of this package."""


class HttpError(ServingError):
    """Base of the errors that an HTTP client receives. Each concrete class declares `status` and `code`."""

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers that the response carries in addition to those of every response."""
        return ()


class RequestError(HttpError):
    """Base of the errors in a request. Their status is 4xx."""


def http_errors(base: type[HttpError] = HttpError) -> Iterator[type[HttpError]]:
    """Yield the concrete subclasses of HttpError that the imported modules define."""
    for error in base.__subclasses__():
        if hasattr(error, "code"):
            yield error
        yield from http_errors(error)

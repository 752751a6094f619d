"""Base classes of the errors of this package, and the redaction of their messages.

Each room defines its own errors in its `errors.py`. Each error is a dataclass: its fields hold the facts, and
`template` turns them into the message. Errors survive pickling, because Ray carries them between processes.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import unquote

USERINFO = re.compile(
    r"(?<=://)(?:[^\s/?#]*@"  # up to the last @ before the path, because a password may contain one
    r"|[^\s/:@\[]*:(?!\d+(?:[/?#\s]|$))[^\s@]*@)"  # a password with a character that should have been escaped
)
"""The credentials of a URI, with the @ that ends them."""
_QUERY_VALUE = re.compile(r"""(?<=[?&#])([\w.~%+\-\[\]]+=)[^\s&#'"<>]+?(?=[).,:;]*(?:[\s&#'"<>]|$))""")
_HEADER = re.compile(r"(?i)(\bauthorization\W{1,6}(?:basic|bearer)\s+)[\w\-.~+/]{6,}=*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


SECRET_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "DATABRICKS_CLIENT_SECRET",
    "DATABRICKS_TOKEN",
    "PGPASSWORD",
    "RAY_AUTH_TOKEN",
)
"""The environment variables that hold a secret, of MLflow, the libraries of its stores, and Ray."""
_URI_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_SHORTEST_SECRET = 8
"""A shorter text is as likely to be a common word as the secret."""


def redacted(text: str) -> str:
    """Return the text without the secrets in it.

    These are the user names, passwords and values of queries of all URLs, and the credentials of Authorization headers.
    The values of SECRET_VARIABLES and the passwords in MLflow's URIs, as this process's environment has them, are
    removed wherever they occur.

    Everything that shows a URI of the user passes through this function: messages, answers, logs, files and printed
    commands. The messages of ExpectedError and the records of RedactingFormatter do so already.
    """
    text = _HEADER.sub(r"\1***", _QUERY_VALUE.sub(r"\1***", USERINFO.sub("***@", text)))
    for secret in _secrets():
        if secret in text:  # as a word of its own: the password of a test may well be "postgres"
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


def _secrets() -> Iterator[str]:
    """Yield the secrets in this process's environment."""
    for name in SECRET_VARIABLES:
        if len(secret := os.environ.get(name, "")) >= _SHORTEST_SECRET:
            yield secret
    for name in _URI_VARIABLES:
        if found := USERINFO.search(os.environ.get(name, "")):
            password = found[0][:-1].partition(":")[2]
            # Libraries decode it, and cut it at a character that should have been escaped.
            for part in (password, unquote(password), *re.split("[@/?#]", password)):
                if len(part) >= _SHORTEST_SECRET:
                    yield part


class RedactingFormatter(logging.Formatter):
    """Formats log records without the credentials of URLs, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return redacted(super().format(record))


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception with its traceback to stderr, without the credentials of URLs. It is a `sys.excepthook`."""
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


def one_line(text: str) -> str:
    """Return the text with line breaks and other control characters as spaces, for texts of others."""
    return _CONTROL.sub(" ", text)


def _shown(message: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a `__str__` that returns the message in one line and without credentials."""
    return lambda self: one_line(redacted(message(self)))


class ExpectedError(Exception):
    """Base of the errors that both packages raise on purpose. Their messages can be shown to a user.

    A message is one line and shows no credentials, even if a field holds the message of another library's exception.
    """

    template: ClassVar[str]
    """The message, a format string of the fields. Classes whose message needs logic define `__str__` instead."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__str__" in vars(cls):
            cls.__str__ = _shown(cls.__str__)  # type: ignore[method-assign]
        cls.__repr__ = ExpectedError.__repr__  # type: ignore[method-assign]  # a dataclass's own shows the fields

    @_shown
    def __str__(self) -> str:
        return self.template.format(**vars(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

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

"""Errors that the clients raise."""

import shlex
from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ServerUnreachable(ServingError):
    """No policy server responded at `url`."""

    template = "no policy server answers at {url} ({reason}). Start one: python -m serving run"

    url: str
    reason: str


@dataclass(eq=False)
class ServerUrlInvalid(ServingError):
    """`url` is not an HTTP URL."""

    template = "'{url}' is not the URL of a policy server, expected one like http://127.0.0.1:8000/cartpole-ppo"

    url: str


@dataclass(eq=False)
class RequestRefused(ServingError):
    """The policy server rejected the request, or failed to compute the action."""

    template = "the server answered {status} {code}: {message}"

    status: int
    code: str
    message: str


@dataclass(eq=False)
class EpisodeInvalid(ServingError):
    """An episode is not played as it can be reported, for the given reason."""

    template = "the episode cannot be reported: {reason}"

    reason: str


@dataclass(eq=False)
class EpisodeEnded(ServingError):
    """A step or an outcome of an episode that has already ended."""

    template = "episode {id} has ended; begin another one: client.episode()"

    id: str


@dataclass(eq=False)
class TokenFileInvalid(ServingError):
    """No bearer token can be read from a file, for the given reason."""

    file: str
    reason: str

    def __str__(self) -> str:
        return (
            f"cannot read a bearer token from {self.file}: {self.reason}. Write one into it: "
            f"(umask 077 && openssl rand -hex 32 > {shlex.quote(self.file)})"
        )

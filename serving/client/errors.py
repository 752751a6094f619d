"""Errors that clients raise."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ServerUnreachable(ServingError):
    """The client reached no policy server."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"no policy server answers at {self.url} ({self.reason}). Start one: python -m serving run"


@dataclass(eq=False)
class ServerUrlInvalid(ServingError):
    """What the client was given is no URL of HTTP."""

    url: str

    def __str__(self) -> str:
        return f"'{self.url}' is no URL of a policy server, expected one like http://127.0.0.1:8000/cartpole-ppo"


@dataclass(eq=False)
class RequestRefused(ServingError):
    """The policy server refused the client's request."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"the server answered {self.status} {self.code}: {self.message}"

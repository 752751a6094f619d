"""Errors that the clients raise."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ServerUnreachable(ServingError):
    """No policy server responded at `url`."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"no policy server answers at {self.url} ({self.reason}). Start one: python -m serving run"


@dataclass(eq=False)
class ServerUrlInvalid(ServingError):
    """`url` is not an HTTP URL."""

    url: str

    def __str__(self) -> str:
        return f"'{self.url}' is not the URL of a policy server, expected one like http://127.0.0.1:8000/cartpole-ppo"


@dataclass(eq=False)
class RequestRefused(ServingError):
    """The policy server rejected the request, or failed to compute the action."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"the server answered {self.status} {self.code}: {self.message}"

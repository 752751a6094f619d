"""A client for a policy server. It needs requests and nothing else: no ray, no torch, no mlflow."""

import json
from types import TracebackType
from typing import Any, Self

import requests

from serving.errors import RequestRefused, ServerUnreachable

Json = Any


class PolicyClient:
    """Asks a policy server for actions over one kept-alive connection. Not to be shared between threads.

    Args:
        url: with the route prefix, such as `http://127.0.0.1:8000/cartpole-ppo`.
        timeout_s: how long to wait for an answer.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.model_version: int | None = None
        """The version that made the last answer; it changes with a promotion."""
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["Content-Type"] = "application/json"

    def act(self, observation: Any) -> Json:
        """Return the action for one observation, an array or nested lists of the observation space's shape.

        Raises:
            RequestRefused: the server says why.
            ServerUnreachable: no server, or no answer in time.
        """
        return self._ask("POST", "/", {"observation": _plain(observation)})["action"]

    def act_batch(self, observations: Any) -> list[Json]:
        """Return the actions for a batch of observations, `[batch, *shape]`. Raises as `act`."""
        actions: list[Json] = self._ask("POST", "/", {"observations": _plain(observations)})["actions"]
        return actions

    def model(self) -> dict[str, Json]:
        """Return what the server serves: name, version, spaces, environment, evaluation. Raises as `act`."""
        description: dict[str, Json] = self._ask("GET", "/model")
        return description

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: Json = None) -> Any:
        content = None if body is None else json.dumps(body)
        try:
            answer = self._session.request(method, self.url + path, data=content, timeout=self._timeout_s)
        except requests.RequestException as error:
            raise ServerUnreachable(self.url, _reason(error)) from error
        version = answer.headers.get("X-Model-Version")
        if version is None:
            # Everything that a policy server answers names its version: this is a proxy, or another server.
            raise ServerUnreachable(self.url, f"HTTP status {answer.status_code} from another server")
        self.model_version = int(version)
        if not answer.ok:
            fault = answer.json()["error"]
            raise RequestRefused(answer.status_code, fault["code"], fault["message"])
        return answer.json()


def _plain(array: Any) -> Json:
    if isinstance(array, (list, tuple)):
        return [_plain(item) for item in array]
    return array.tolist() if hasattr(array, "tolist") else array


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "connection refused" if "refused" in str(error) else str(error)

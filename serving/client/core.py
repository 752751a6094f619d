"""Requests, responses and recurrent states of a client, independent of the HTTP library.

It imports neither ray, torch, mlflow nor numpy.
"""

import base64
import json
from collections.abc import Hashable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from serving.client.errors import RequestRefused, ServerUnreachable, ServerUrlInvalid
from serving.client.retry import NoResponse, Response, RetryPolicy

Json = Any

MAX_LISTED = 1024
"""Arrays with more elements are sent in base64, which is shorter and faster to decode."""


class Request(NamedTuple):
    """An HTTP request; `path` is relative to the client's URL."""

    method: str
    path: str
    body: bytes | None = None
    episodes: Sequence[Hashable] = ()
    """The episode of each observation; its state in the response is kept for the next request."""


class BaseClient:
    """Builds requests, reads responses, and keeps the states of recurrent policies.

    Args:
        url: the server's URL with the route prefix, such as `http://127.0.0.1:8000/cartpole-ppo`.
        timeout_s: the time to wait for the response of each attempt, in seconds.
        connect_timeout_s: the time to wait for the connection of each attempt, in seconds.
        total_timeout_s: the longest duration of a call with all its attempts and the delays between them, in seconds.
        retries: how often a call is retried if the connection fails, the response takes too long, or its status is
            502, 503 or 504. Other responses are final.
        token: the bearer token, if the server requires one.

    Raises:
        ServerUrlInvalid: `url` is not an HTTP URL.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = RetryPolicy.timeout_s,
        connect_timeout_s: float = RetryPolicy.connect_timeout_s,
        total_timeout_s: float = RetryPolicy.total_timeout_s,
        retries: int = RetryPolicy.retries,
        token: str | None = None,
    ) -> None:
        if not _is_http(url):
            raise ServerUrlInvalid(url)
        self.url = url.rstrip("/")
        self.model_version: int | None = None
        """The model version of the last response; it changes after a promotion."""
        self.state_reset = False
        """Whether the last action started from the initial state because the sent one was of another version."""
        self._action_space: tuple[int | None, dict[str, Json]] = (None, {})
        """A model version, and its action space."""
        self._states: dict[Hashable, str] = {}
        self._retry_policy = RetryPolicy(connect_timeout_s, timeout_s, total_timeout_s, retries)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def _elements(self, actions: list[Json], space: dict[str, Json]) -> list[Any]:
        """Return actions as elements of the server's action space; without numpy, as they are."""
        try:
            from serving.client.actions import element
        except ImportError:
            return actions
        return [element(space, action) for action in actions]

    def reset(self, *episodes: Hashable) -> None:
        """Discard the states of the given episodes, by default of all; they continue from the initial state."""
        for episode in episodes or tuple(self._states):
            self._states.pop(episode, None)

    def _request(self, observation: Any, episode: Hashable, **options: Json) -> Request:
        options["state"] = self._states.get(episode)
        return _post({"observation": to_json(observation)}, options, [episode])

    def _batch_request(self, observations: Any, episodes: Sequence[Hashable] | None, **options: Json) -> Request:
        episodes = range(len(observations)) if episodes is None else episodes
        states = [self._states.get(episode) for episode in episodes]
        options["states"] = states if any(states) else None
        return _post({"observations": to_json(observations)}, options, episodes)

    def _content(self, request: Request, outcome: Response | NoResponse) -> dict[str, Json]:
        """Return the JSON content of a successful response, and keep the states in it.

        Raises:
            RequestRefused: the server responded with an error.
            ServerUnreachable: there is no response, or it is not from a policy server.
        """
        if isinstance(outcome, NoResponse):
            raise ServerUnreachable(self.url, outcome.reason) from outcome.error
        version = outcome.headers.get("X-Model-Version", "")
        if not version.isdecimal():
            # Every response of a policy server has this header, so a proxy or another server sent this one.
            raise ServerUnreachable(self.url, _foreign_reason(outcome))
        self.model_version = int(version)
        try:
            content: dict[str, Json] = json.loads(outcome.body)
        except ValueError as error:
            raise ServerUnreachable(self.url, f"HTTP status {outcome.status} with a body that is not JSON") from error
        if outcome.status >= HTTPStatus.BAD_REQUEST:
            raise RequestRefused(outcome.status, content["error"]["code"], content["error"]["message"])
        if request.episodes:
            self._keep_states(content, request.episodes)
        return content

    def _keep_states(self, answer: dict[str, Json], episodes: Sequence[Hashable]) -> None:
        reset = answer.get("state_reset", False)
        self.state_reset = any(reset) if isinstance(reset, list) else reset
        states = answer.get("states") or [answer.get("state")] * len(episodes)
        for episode, state in zip(episodes, states, strict=True):
            if state is None:  # The policy is not recurrent, or not any more after a promotion.
                self._states.pop(episode, None)
            else:
                self._states[episode] = state


def _foreign_reason(response: Response) -> str:
    """Return the reason of a response without a model version: that of the proxy, if it is one of its errors."""
    try:
        return str(json.loads(response.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status} from another server"


def are_typed(actions: list[Json]) -> bool:
    """Return whether actions need no conversion: those of a Discrete space are integers in JSON, too."""
    return all(isinstance(action, int) for action in actions)


def _post(body: dict[str, Json], options: dict[str, Json], episodes: Sequence[Hashable]) -> Request:
    """Return a request for actions without the options that are None or False, the server's defaults."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return Request("POST", "/", json.dumps(body | given).encode(), episodes)


def to_json(value: Any, max_listed: int = MAX_LISTED) -> Json:
    """Return the JSON form of an observation: arrays, numbers, and dicts, lists and tuples of them."""
    if isinstance(value, dict):
        return {key: to_json(part, max_listed) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part, max_listed) for part in value]
    if getattr(value, "size", 0) > max_listed:
        content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return {"base64": base64.b64encode(content).decode(), "dtype": value.dtype.name, "shape": list(value.shape)}
    return value.tolist() if hasattr(value, "tolist") else value


def failure_reason(error: Exception) -> str:
    """Return a short description of a connection error; the HTTP libraries hide its cause in nested exceptions."""
    text = f"{error!r} {error.__cause__!r} {error.__context__!r}"
    if "Timeout" in text:
        return "no answer in time"
    if "refused" in text or "Connect call failed" in text:
        return "connection refused"
    if "NameResolution" in text or "gaierror" in text or "DNS" in text:
        return "host unknown"
    broken = ("ConnectionReset", "RemoteDisconnected", "ServerDisconnected", "IncompleteRead", "Payload", "BrokenPipe")
    return "the connection broke" if any(name in text for name in broken) else str(error)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)

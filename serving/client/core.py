"""Requests, responses and recurrent states of a client, independent of the HTTP library.

It imports neither ray, torch, mlflow nor numpy.
"""

import base64
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from serving.client.episodes.batches import Group
from serving.client.episodes.episode import BaseEpisode
from serving.client.episodes.features import EPISODE_KEYS, Features
from serving.client.errors import RequestRefused, ServerUnreachable, ServerUrlInvalid
from serving.client.proxies import proxy_of, through_proxy
from serving.client.retry import NoResponse, Response, RetryPolicy

Json = Any

_VERSION = re.compile(r"[0-9]{1,18}")

MAX_MESSAGE = 2000
"""The longest message of a server that is shown, in characters."""

MAX_SPACES = 8
"""The most versions whose action space is kept."""

MAX_LISTED = 1024
"""Arrays with more elements are sent in base64, which is shorter and faster to decode."""


class Request(NamedTuple):
    """An HTTP request; `path` is relative to the client's URL."""

    method: str
    path: str
    body: bytes | None = None
    episodes: Sequence[Hashable] = ()
    """The episode of each observation; its state in the response is kept for the next request."""
    answered_by: str | None = None
    """The key of the response that holds the actions."""
    headers: Mapping[str, str] = {}
    """Headers in addition to those of every request."""
    unnamed_body: bytes | None = None
    """The body for a server of an earlier release, which rejects the names of episodes."""


class Reply(NamedTuple):
    """The JSON content of a successful response, and the model version that answered."""

    content: dict[str, Json]
    version: int


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
        self._proxy = proxy_of(url)
        self.model_version: int | None = None
        """The model version of the last response; it changes after a promotion."""
        self.state_reset = False
        """Whether the last action started from the initial state because the sent one was of another version."""
        self._action_spaces: dict[int, dict[str, Json]] = {}
        """The action spaces of the last model versions."""
        self._features = Features()
        self._states: dict[Hashable, str] = {}
        self._retry_policy = RetryPolicy(connect_timeout_s, timeout_s, total_timeout_s, retries)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def reset(self, *episodes: Hashable) -> None:
        """Discard the states of the given episodes, by default of all; they continue from the initial state.

        Episodes of `episode` begin with the initial state by themselves.
        """
        for episode in episodes or tuple(self._states):
            self._states.pop(episode, None)

    def _elements(self, actions: list[Json], space: dict[str, Json]) -> list[Any]:
        """Return actions as elements of the server's action space; without numpy, as they are."""
        try:
            from serving.client.actions import element
        except ImportError:
            return actions
        return [element(space, action) for action in actions]

    def _keep_space(self, version: int, model: dict[str, Json]) -> None:
        """Keep the action space of a version, which its description names."""
        if len(self._action_spaces) >= MAX_SPACES:
            self._action_spaces.clear()
        self._action_spaces[version] = model.get("action_space", {})
        self.model_version = version

    def _state(self, episode: Hashable) -> str | None:
        return episode.state if isinstance(episode, BaseEpisode) else self._states.get(episode)

    def _request(self, observation: Any, episode: Hashable, **options: Json) -> Request:
        options["state"] = self._state(episode)
        request = _post({"observation": to_json(observation)}, options, [episode])
        if not isinstance(episode, BaseEpisode):
            return request
        episode.check_running()
        return request._replace(headers=episode.headers)

    def _batch_request(self, group: Group, **options: Json) -> Request:
        states = [self._state(episode) for episode in group.episodes]
        options["states"] = states if any(states) else None
        body: dict[str, Json] = {"observations": to_json(group.observations)}
        request = _post(body, options, group.episodes)._replace(headers=group.headers)
        if not (group.played and self._features.has(EPISODE_KEYS)):
            return request
        return request._replace(body=_post(body | group.keys, options, group.episodes).body, unnamed_body=request.body)

    def _unnamed(self, request: Request, error: RequestRefused) -> Request:
        """Return a request without the names of episodes, after a server has rejected them. Raises other errors."""
        if request.unnamed_body is None:
            raise error
        self._features.note_refusal(EPISODE_KEYS, error)
        return request._replace(body=request.unnamed_body, unnamed_body=None)

    def _reply(self, request: Request, outcome: Response | NoResponse) -> Reply:
        """Return the content of a successful response.

        Raises:
            RequestRefused: the server responded with an error.
            ServerUnreachable: there is no response, or it is not from a policy server.
        """
        if isinstance(outcome, NoResponse):
            raise self._unreachable(outcome.reason) from outcome.error
        version = outcome.headers.get("X-Model-Version", "")
        if not _VERSION.fullmatch(version):
            # Every response of a policy server has this header, so a proxy or another server sent this one.
            raise self._unreachable(_foreign_reason(outcome))
        self.model_version = int(version)
        try:
            content = json.loads(outcome.body)
        except (ValueError, RecursionError) as error:
            raise self._unreachable(f"HTTP status {outcome.status} with a body that is not JSON") from error
        if outcome.status >= HTTPStatus.BAD_REQUEST:
            raise self._refusal(outcome.status, content)
        if not (isinstance(content, dict) and _is_answer(request, content)):
            raise self._unreachable(f"HTTP status {outcome.status} with a body that is not a policy server's")
        return Reply(content, self.model_version)

    def _unreachable(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(self.url, through_proxy(self.url, reason))

    def _refusal(self, status: int, content: Json) -> RequestRefused | ServerUnreachable:
        error = content.get("error") if isinstance(content, dict) else None
        if not isinstance(error, dict):
            return self._unreachable(f"HTTP status {status} with a body that is not a policy server's")
        return RequestRefused(status, *(str(error.get(name))[:MAX_MESSAGE] for name in ("code", "message")))

    def _keep_states(self, request: Request, reply: Reply) -> None:
        """Count a step of each episode, and keep its state for the next one."""
        reset = reply.content.get("state_reset", False)
        self.state_reset = any(reset) if isinstance(reset, list) else bool(reset)
        for episode, state in zip(request.episodes, _states(reply.content, len(request.episodes)), strict=True):
            if isinstance(episode, BaseEpisode):
                episode.advance(reply.version, state)
            elif state is None:  # The policy is not recurrent, or not any more after a promotion.
                self._states.pop(episode, None)
            else:
                self._states[episode] = state


def feedback(events: Sequence[Mapping[str, Any]]) -> Request:
    """Return the request that reports events of episodes."""
    return Request("POST", "/feedback", json.dumps({"events": to_json(events)}).encode())


def _states(answer: dict[str, Json], count: int) -> Json:
    return answer.get("states") or [answer.get("state")] * count


def _is_answer(request: Request, content: dict[str, Json]) -> bool:
    """Return whether the response to a request for actions has an action and a state for each observation."""
    if request.answered_by is None:
        return True
    count, actions = len(request.episodes), content.get(request.answered_by)
    lists = [_states(content, count), *([actions] if request.answered_by == "actions" else [])]
    return actions is not None and all(isinstance(each, list) and len(each) == count for each in lists)


def _foreign_reason(response: Response) -> str:
    """Return the reason of a response without a model version: that of the proxy, if it is one of its errors."""
    try:
        return str(json.loads(response.body)["error"]["message"])[:MAX_MESSAGE]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP status {response.status} from another server"


def are_typed(actions: list[Json]) -> bool:
    """Return whether actions need no conversion: those of a Discrete space are integers in JSON, too."""
    return all(isinstance(action, int) for action in actions)


def _post(body: dict[str, Json], options: dict[str, Json], episodes: Sequence[Hashable]) -> Request:
    """Return a request for actions without the options that are None or False, the server's defaults."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    answered_by = "actions" if "observations" in body else "action"
    return Request("POST", "/", json.dumps(body | given).encode(), episodes, answered_by)


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
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, too
        return False

"""What clients of a policy server say, understand and remember; how bytes travel is each client's own.

It needs neither ray, torch, mlflow nor numpy.
"""

import base64
import json
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from serving.client.errors import RequestRefused, ServerUnreachable, ServerUrlInvalid
from serving.client.retry import Lost, Patience, Reply

Json = Any

LARGE = 1024
"""Arrays of more numbers are sent in base64, which is shorter and quicker to read."""

FAILED_FROM = 400


class Question(NamedTuple):
    """A request, under the server's route prefix."""

    method: str
    path: str
    body: bytes | None = None


class Conversation:
    """What was learnt from the answers of one server: its version, and the states of recurrent policies.

    Args:
        url: with the route prefix, such as `http://127.0.0.1:8000/cartpole-ppo`.
        timeout_s: how long to wait for an answer, each time.
        connect_timeout_s: how long to wait for a connection, each time.
        total_timeout_s: how long a call may take with all its attempts and the waits between them.
        retries: how often to ask again, when the connection failed or the answer was 502, 503 or 504, or too long in
            coming. Any other answer is final.
        token: the bearer token, of a server that asks for one.

    Raises:
        ServerUrlInvalid: the URL is none of HTTP.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = Patience.timeout_s,
        connect_timeout_s: float = Patience.connect_timeout_s,
        total_timeout_s: float = Patience.total_timeout_s,
        retries: int = Patience.retries,
        token: str | None = None,
    ) -> None:
        if not _is_http(url):
            raise ServerUrlInvalid(url)
        self.url = url.rstrip("/")
        self.model_version: int | None = None
        """The version that made the last answer; it changes with a promotion."""
        self.state_reset = False
        """Whether the last answer began anew, because the state was that of a version before a promotion."""
        self._states: dict[Hashable, str] = {}
        self._patience = Patience(connect_timeout_s, timeout_s, total_timeout_s, retries)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def reset(self, *episodes: Hashable) -> None:
        """Forget the states of some episodes, or of all: the next action of each begins with the initial state."""
        for episode in episodes or tuple(self._states):
            self._states.pop(episode, None)

    def _question(self, observation: Any, episode: Hashable, options: dict[str, Json]) -> Question:
        body = {"observation": plain(observation), **options}
        if episode in self._states:
            body["state"] = self._states[episode]
        return Question("POST", "/", json.dumps(body).encode())

    def _batch_question(self, observations: Any, episodes: Sequence[Hashable], options: dict[str, Json]) -> Question:
        body = {"observations": plain(observations), **options}
        if any(episode in self._states for episode in episodes):
            body["states"] = [self._states.get(episode) for episode in episodes]
        return Question("POST", "/", json.dumps(body).encode())

    def _understand(self, outcome: Reply | Lost) -> Any:
        """Return the JSON of an answer. Raises RequestRefused, ServerUnreachable."""
        if isinstance(outcome, Lost):
            raise ServerUnreachable(self.url, outcome.reason) from outcome.error
        version = outcome.headers.get("X-Model-Version", "")
        if not version.isdecimal():
            # Everything that a policy server answers names its version: this is a proxy, or another server.
            raise ServerUnreachable(self.url, f"HTTP status {outcome.status} from another server")
        self.model_version = int(version)
        try:
            answer = json.loads(outcome.body)
        except ValueError as error:
            raise ServerUnreachable(self.url, f"HTTP status {outcome.status} with a body that is not JSON") from error
        if outcome.status >= FAILED_FROM:
            raise RequestRefused(outcome.status, answer["error"]["code"], answer["error"]["message"])
        return answer

    def _remember(self, answer: dict[str, Json], episode: Hashable) -> None:
        self._carry([episode], [answer.get("state")], reset=answer.get("state_reset", False))

    def _remember_batch(self, answer: dict[str, Json], episodes: Sequence[Hashable]) -> None:
        self._carry(episodes, answer.get("states"), reset=any(answer.get("state_reset", ())))

    def _carry(self, episodes: Sequence[Hashable], states: Sequence[str | None] | None, *, reset: bool) -> None:
        self.state_reset = reset
        for episode, state in zip(episodes, states or [None] * len(episodes), strict=True):
            if state is None:  # the policy isn't recurrent, or not any more
                self._states.pop(episode, None)
            else:
                self._states[episode] = state


def options_of(*, explore: bool, seed: int | None, details: bool = False) -> dict[str, Json]:
    """Return what a request says beside its observation: nothing, where nothing is asked for."""
    flags = {name: True for name, asked in (("explore", explore), ("details", details)) if asked}
    return flags if seed is None else {**flags, "seed": seed}


def plain(value: Any) -> Json:
    """Return the JSON form of what an environment returns."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if getattr(value, "size", 0) > LARGE:
        content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return {"base64": base64.b64encode(content).decode(), "dtype": value.dtype.name, "shape": list(value.shape)}
    return value.tolist() if hasattr(value, "tolist") else value


def reason_of(error: Exception) -> str:
    """Return in a few words why there was no answer; the libraries wrap the cause in their own."""
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

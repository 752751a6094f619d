"""A client for a policy server. It needs requests and nothing else: no ray, no torch, no mlflow."""

import base64
import json
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Any, Self

import requests

from serving.errors import RequestRefused, ServerUnreachable

Json = Any

LARGE = 1024
"""Arrays of more numbers are sent in base64, which is shorter and quicker to read."""


class PolicyClient:
    """Asks a policy server for actions over one kept-alive connection. Not to be shared between threads.

    Observations are what the environment returns: arrays, numbers, and dicts and tuples of them. The states of a
    recurrent policy go with each request and come with each answer; call `reset` where an episode begins.

    Args:
        url: with the route prefix, such as `http://127.0.0.1:8000/cartpole-ppo`.
        timeout_s: how long to wait for an answer.
        token: the bearer token, of a server that asks for one.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.model_version: int | None = None
        """The version that made the last answer; it changes with a promotion."""
        self.state_reset = False
        """Whether the last answer began anew, because the state was that of a version before a promotion."""
        self._states: dict[Hashable, str] = {}
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["Content-Type"] = "application/json"
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def reset(self, *episodes: Hashable) -> None:
        """Forget the states of some episodes, or of all: the next action of each begins with the initial state."""
        for episode in episodes or tuple(self._states):
            self._states.pop(episode, None)

    def act(self, observation: Any, *, explore: bool = False, seed: int | None = None) -> Json:
        """Return the action for one observation: what `env.step` takes.

        Args:
            observation: of the observation space.
            explore: sample it from the policy's distribution, instead of taking the most probable one.
            seed: makes the sample repeatable; the same for each step would draw the same noise for each.

        Raises:
            RequestRefused: the server says why.
            ServerUnreachable: no server, or no answer in time.
        """
        return self.answer(observation, explore=explore, seed=seed)["action"]

    def answer(
        self, observation: Any, *, explore: bool = False, seed: int | None = None, details: bool = False
    ) -> dict[str, Json]:
        """Return the server's whole answer for one observation; `details` adds what is known of the action.

        Raises as `act`.
        """
        body = {"observation": _plain(observation), **_options(explore=explore, seed=seed, details=details)}
        if None in self._states:
            body["state"] = self._states[None]
        answer: dict[str, Json] = self._ask("POST", "/", body)
        self._carry([None], [answer.get("state")], reset=answer.get("state_reset", False))
        return answer

    def act_batch(
        self,
        observations: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        episodes: Sequence[Hashable] | None = None,
    ) -> list[Json]:
        """Return the actions for a batch of observations.

        Args:
            observations: a list of them, or an array `[batch, *shape]`.
            explore: as for `act`.
            seed: as for `act`.
            episodes: what names the episode of each; by default its place in the batch.

        Raises as `act`.
        """
        names = range(len(observations)) if episodes is None else episodes
        body = {"observations": _plain(observations), **_options(explore=explore, seed=seed)}
        if any(name in self._states for name in names):
            body["states"] = [self._states.get(name) for name in names]
        answer = self._ask("POST", "/", body)
        self._carry(names, answer.get("states"), reset=any(answer.get("state_reset", ())))
        actions: list[Json] = answer["actions"]
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

    def _carry(self, episodes: Sequence[Hashable], states: Sequence[str | None] | None, *, reset: bool) -> None:
        self.state_reset = reset
        for episode, state in zip(episodes, states or [None] * len(episodes), strict=True):
            if state is None:  # the policy isn't recurrent, or not any more
                self._states.pop(episode, None)
            else:
                self._states[episode] = state

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


def _options(*, explore: bool, seed: int | None, details: bool = False) -> dict[str, Json]:
    """Return what a request says beside its observation: nothing, where nothing is asked for."""
    flags = {name: True for name, asked in (("explore", explore), ("details", details)) if asked}
    return flags if seed is None else {**flags, "seed": seed}


def _plain(value: Any) -> Json:
    """Return the JSON form of what an environment returns."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if getattr(value, "size", 0) > LARGE:
        content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return {"base64": base64.b64encode(content).decode(), "dtype": value.dtype.name, "shape": list(value.shape)}
    return value.tolist() if hasattr(value, "tolist") else value


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "connection refused" if "refused" in str(error) else str(error)

"""One episode that is played with a policy server: its steps, its rewards, its version and its state.

It uses the standard library only. `Episode` and `AsyncEpisode` differ in what they await.
"""

import math
import re
import uuid
from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self

from serving.client.errors import EpisodeEnded, EpisodeInvalid

Json = Any
Done = Literal["terminated", "truncated"]

_ID = re.compile(r"[\x21-\x7e]{1,128}")


class BaseEpisode:
    """What a client knows of one episode.

    Args:
        id: names the episode, in 1 to 128 visible ASCII characters. Default: a new random name.

    Raises:
        EpisodeInvalid: `id` is no such name.
    """

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - the word of the protocol
        self.id = uuid.uuid4().hex if id is None else id
        if not _ID.fullmatch(self.id):
            raise EpisodeInvalid(f"its id is {self.id[:200]!r}, expected 1 to 128 visible ASCII characters")
        self.step = 0
        """The number of steps so far, which is also that of the next step."""
        self.version: int | None = None
        """The model version of the last answer."""
        self.repinned = False
        """Whether more than one version has answered the episode."""
        self.state: str | None = None
        """The state of a recurrent policy after the last step."""
        self.total_reward: float | None = None
        """The return so far; None if no reward has been reported."""
        self.done: Done | None = None
        """How the episode has ended; None while it is running."""
        self.recorded: bool | None = None
        """Whether the server has recorded the outcome as experience; None before `end`."""
        self._last_reward: float | None = None

    def reward(self, reward: float) -> None:
        """Report the reward that followed the last action. Rewards of several calls for one action are summed.

        It is sent with the request for the next action, or by `end`.

        Raises:
            EpisodeInvalid: there was no action yet, or the reward is not finite.
            EpisodeEnded: the episode has ended.
        """
        self.check_running()
        number = float(reward)
        if not self.step or not math.isfinite(number):
            raise EpisodeInvalid(f"its reward is {number}, expected a finite number" if self.step else "no action yet")
        self._last_reward = number + (self._last_reward or 0.0)
        self.total_reward = number + (self.total_reward or 0.0)

    @property
    def last_reward(self) -> float | None:
        """The reward of the last step so far; None if it is unknown."""
        return self._last_reward

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the request for the next action."""
        headers = {"X-Episode-Id": self.id, "X-Episode-Step": str(self.step), **request_headers(self.version)}
        return headers if self._last_reward is None else {**headers, "X-Episode-Reward": repr(self._last_reward)}

    def check_running(self) -> None:
        """Raise EpisodeEnded if `end` was called."""
        if self.done is not None:
            raise EpisodeEnded(self.id)

    def advance(self, version: int, state: str | None) -> None:
        """Count a step, which this version answered with this state."""
        self.repinned |= self.version not in (None, version)
        self.version, self.state = version, state
        self.step, self._last_reward = self.step + 1, None

    def outcome(self, done: Done, final_observation: Any) -> dict[str, Json]:
        """Return the event that reports the end of the episode."""
        self.check_running()
        if done not in ("terminated", "truncated"):
            raise EpisodeInvalid(f"its end is {done!r}, expected 'terminated' or 'truncated'")
        rewards = None if self._last_reward is None else [{"step": self.step - 1, "reward": self._last_reward}]
        event = {
            "episode": self.id,
            "rewards": rewards,
            "return": self.total_reward,
            "length": self.step,
            "done": done,
            "version": self.version,
            "final_observation": final_observation,
        }
        return {name: value for name, value in event.items() if value is not None}


def pin(version: int | None) -> dict[str, str]:
    """Return the header that asks for an answer of this version; none without a version."""
    return {} if version is None else {"X-Pin-Version": str(version)}


def request_headers(version: int | None) -> dict[str, str]:
    """Return the headers of a request for actions: a new identifier, the same for all its attempts, and the pin."""
    return {"X-Request-ID": uuid.uuid4().hex, **pin(version)}


class Client(Protocol):
    """What an episode needs of a `PolicyClient`."""

    def act(self, observation: Any, *, explore: bool, seed: int | None, episode: BaseEpisode) -> Any:
        """Return the action for one observation."""

    def feedback(self, *events: Mapping[str, Any]) -> bool:
        """Report events of episodes."""


class Episode(BaseEpisode):
    """An episode that a `PolicyClient` plays: `with client.episode() as episode`.

    Leaving the block ends the episode as truncated, unless `end` was called. If an exception leaves the block, nothing
    is reported: whether the policy or the program failed is unknown, and a server counts such episodes as unreported.
    """

    def __init__(self, client: Client, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id)
        self._client = client

    def act(self, observation: Any, *, explore: bool = False, seed: int | None = None) -> Any:
        """Return the action for the next step, as `PolicyClient.act`."""
        return self._client.act(observation, explore=explore, seed=seed, episode=self)

    def end(self, done: Done, final_observation: Any = None) -> None:
        """Report how the episode ended. A server that records nothing sets `recorded` to false, which is no error.

        Args:
            done: "terminated" if it reached an end of its own, "truncated" if it was cut off, as by a time limit.
            final_observation: the observation after the last action.

        Raises:
            EpisodeEnded: it was called before.
            RequestRefused, ServerUnreachable: as `PolicyClient.act`; then it can be called again.
        """
        outcome = self.outcome(done, final_observation)
        self.recorded = self._client.feedback(outcome) if self.step else False
        self.done = done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.done is None:
            self.end("truncated")


class AsyncClient(Protocol):
    """What an episode needs of an `AsyncPolicyClient`."""

    async def act(self, observation: Any, *, explore: bool, seed: int | None, episode: BaseEpisode) -> Any:
        """Return the action for one observation."""

    async def feedback(self, *events: Mapping[str, Any]) -> bool:
        """Report events of episodes."""


class AsyncEpisode(BaseEpisode):
    """An episode that an `AsyncPolicyClient` plays: `async with client.episode() as episode`. It ends as `Episode`."""

    def __init__(self, client: AsyncClient, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id)
        self._client = client

    async def act(self, observation: Any, *, explore: bool = False, seed: int | None = None) -> Any:
        """Return the action for the next step, as `PolicyClient.act`."""
        return await self._client.act(observation, explore=explore, seed=seed, episode=self)

    async def end(self, done: Done, final_observation: Any = None) -> None:
        """Report how the episode ended, as `Episode.end`."""
        outcome = self.outcome(done, final_observation)
        self.recorded = await self._client.feedback(outcome) if self.step else False
        self.done = done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.done is None:
            await self.end("truncated")

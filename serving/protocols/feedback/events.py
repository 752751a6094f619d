"""Reads events: what a client reports of one episode."""

import base64
import time
from dataclasses import dataclass
from typing import Any

from serving.experience.episodes import MAX_STEP, EpisodeHasher
from serving.policy.policy import Policy
from serving.policy.spaces import Json, describe
from serving.policy.tensors import Tensors
from serving.protocols.episodes import EXPECTED_NAME, is_episode_name, is_number
from serving.protocols.errors import FeedbackInvalid, RequestPartError
from serving.protocols.native.observations import ObservationReader
from serving.registry.model_version import ModelVersion

ENDS = ("terminated", "truncated")
REPORTED = ("rewards", "return", "length", "done", "final_observation")
KEYS = ("episode", *REPORTED, "version")
MAX_VERSION = 2**31 - 1

EXPECTED_KEYS = f"an object with {', '.join(KEYS)}"
EXPECTED_REWARD = 'an object {"step": an integer from 0 to 2**53, "reward": a finite number}'


@dataclass(frozen=True)
class Event:
    """What a client reports of one episode. None stands for what it does not report."""

    episode: bytes
    """The hash of the episode's name."""
    rewards: list[tuple[int, float]]
    """The step of an action, and the reward that followed it."""
    episode_return: float | None
    """The sum of the episode's rewards."""
    length: int | None
    """The number of the episode's steps."""
    done: str | None
    """One of ENDS."""
    version: int | None
    """The version that played the episode, by the client."""
    final_observation: Tensors | None
    """The observation after the last action, `[1, *shape]` by the names of the graph's inputs."""

    def content(self) -> dict[str, Any]:
        """Return the content of a FEEDBACK record."""
        final = self.final_observation
        return {
            "time_ns": time.time_ns(),
            "episode": self.episode.hex(),
            "rewards": self.rewards,
            "return": self.episode_return,
            "length": self.length,
            "done": self.done,
            "version": self.version,
            "final_observation": final and {name: _base64(each) for name, each in final.items()},
        }


class EventReader:
    """Reads events for one version, whose observation space that of the final observation is."""

    def __init__(self, policy: Policy, version: ModelVersion) -> None:  # noqa: ARG002 - as `ServedPolicy.prepared` calls it
        self._observations = ObservationReader(policy.observation_space)

    def read(self, value: Json, path: str, hashed: EpisodeHasher) -> Event:
        """Return the event in a JSON value, whose place in the request is `path`. Raises RequestError."""
        if type(value) is not dict or not value.keys() <= {*KEYS}:
            raise FeedbackInvalid(path, _unknown(value), EXPECTED_KEYS)
        place = f"{path}." if path != "body" else ""
        if not is_episode_name(value.get("episode")):
            raise FeedbackInvalid(f"{place}episode", describe(value.get("episode")), EXPECTED_NAME)
        if not any(value.get(key) is not None for key in REPORTED):
            raise FeedbackInvalid(path, "a report of nothing", f"one of {', '.join(REPORTED)}")
        return Event(
            episode=hashed(value["episode"]),
            rewards=_rewards(value.get("rewards"), f"{place}rewards"),
            episode_return=_number(value.get("return"), f"{place}return"),
            length=_integer(value.get("length"), f"{place}length", MAX_STEP),
            done=_end(value.get("done"), f"{place}done"),
            version=_integer(value.get("version"), f"{place}version", MAX_VERSION),
            final_observation=self._final(value.get("final_observation"), f"{place}final_observation"),
        )

    def _final(self, value: Json, path: str) -> Tensors | None:
        if value is None:
            return None
        try:
            return self._observations.read(value)
        except RequestPartError as error:
            raise type(error)(error.path.replace("observation", path, 1), error.found, error.expected) from None


def _rewards(value: Json, path: str) -> list[tuple[int, float]]:
    if value is None:
        return []
    if type(value) is not list:
        raise FeedbackInvalid(path, describe(value), f"a list, each element {EXPECTED_REWARD}")
    for index, each in enumerate(value):
        is_reward = type(each) is dict and each.keys() == {"step", "reward"}
        if not (is_reward and _is_integer(each["step"], MAX_STEP) and is_number(each["reward"])):
            raise FeedbackInvalid(f"{path}[{index}]", describe(each), EXPECTED_REWARD)
    return [(each["step"], float(each["reward"])) for each in value]


def _number(value: Json, path: str) -> float | None:
    if value is None:
        return None
    if not is_number(value):
        raise FeedbackInvalid(path, describe(value), "a finite number")
    return float(value)


def _integer(value: Json, path: str, largest: int) -> int | None:
    if value is not None and not _is_integer(value, largest):
        raise FeedbackInvalid(path, describe(value), f"an integer from 0 to {largest}")
    return value  # type: ignore[no-any-return]


def _is_integer(value: Json, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def _end(value: Json, path: str) -> str | None:
    if value is not None and value not in ENDS:
        raise FeedbackInvalid(path, describe(value), '"terminated", "truncated" or null')
    return value  # type: ignore[no-any-return]


def _unknown(value: Json) -> str:
    if type(value) is not dict:
        return describe(value)
    key = next(key for key in value if key not in KEYS)
    return f'an object with the unknown key "{key}"'


def _base64(tensor: Any) -> str:
    return base64.b64encode(tensor.tobytes()).decode()

"""Reads which episode, which step, and which reward of the step before a request names.

Headers name them on every protocol: X-Episode-Id, X-Episode-Step, X-Episode-Reward. The native protocol also has keys
in its body, and lists of them beside a list of observations.
"""

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from serving.experience.episodes import (
    MAX_EPISODE_LENGTH,
    MAX_STEP,
    NO_EPISODE,
    NO_STEP,
    EpisodeHasher,
    Episodes,
    Origin,
)
from serving.experience.journal.records import PROTOCOLS
from serving.experiments.assignment import explores
from serving.policy.errors import OptionInvalid
from serving.policy.spaces import Json, describe
from serving.protocols.errors import EpisodeAmbiguous, HeaderInvalid

Headers = Iterable[tuple[bytes, bytes]]

PREFIX = b"x-episode-"
ID, STEP, REWARD = (b"x-episode-id", b"x-episode-step", b"x-episode-reward")

KEYS = ("episode", "step", "reward")
"""The keys of a body with one observation."""
PLURAL_KEYS = ("episodes", "steps", "rewards")
"""The keys of a body with a list of observations: each is a list of one value per observation, or null."""

EXPECTED_NAME = f"1 to {MAX_EPISODE_LENGTH} visible ASCII characters"
EXPECTED_STEP = "an integer from 0 to 2**53, and an episode"
EXPECTED_REWARD = "a finite number, and a step from 1 on: it is the reward of the step before"

_NAME = re.compile(rf"[!-~]{{1,{MAX_EPISODE_LENGTH}}}")


class Claim(NamedTuple):
    """What a request says of one observation; None where it says nothing."""

    episode: Json = None
    step: Json = None
    reward: Json = None

    def fault(self) -> tuple[str, Json, str] | None:
        """Return the key, the value and the expectation of the first value that is invalid."""
        if self.episode is not None and not is_episode_name(self.episode):
            return "episode", self.episode, EXPECTED_NAME
        if self.step is not None and (self.episode is None or not _is_step(self.step)):
            return "step", self.step, EXPECTED_STEP
        if self.reward is not None and not (self.step and is_number(self.reward)):
            return "reward", self.reward, EXPECTED_REWARD
        return None


class EpisodeReader:
    """Reads the origin of the observations of requests.

    Args:
        hashed: turns an episode's name into the hash under which it is stored.
        records: whether decisions are recorded.
        explore_share: the share of the episodes whose actions are sampled, unless a request says otherwise.
    """

    def __init__(
        self,
        hashed: EpisodeHasher = EpisodeHasher(),  # noqa: B008 - immutable
        *,
        records: bool = False,
        explore_share: float = 0.0,
    ) -> None:
        self.hashed = hashed
        self._unnamed = {
            protocol: Source(hashed, number, None, Origin(number, None) if records else None, explore_share)
            for number, protocol in enumerate(PROTOCOLS)
        }

    def of_headers(self, protocol: str, headers: Headers) -> "Source":
        """Return what the headers of a request say, with names in lower case. Raises HeaderInvalid."""
        unnamed = self._unnamed[protocol]
        for name, _ in headers:
            if name[: len(PREFIX)] == PREFIX:
                return unnamed._replace(claim=_claim_of(headers))
        return unnamed


class Source(NamedTuple):
    """What the headers of one request say of its episode."""

    hashed: EpisodeHasher
    protocol: int
    claim: Claim | None
    unnamed: Origin | None
    """The origin of observations that belong to no episode; None if nothing is recorded."""
    explore_share: float = 0.0
    """The share of the episodes whose actions are sampled."""

    def origin(self, batch: int, body: Mapping[str, Json] = {}, *, batched: bool = False) -> Origin | None:
        """Return the origin of the observations of the request; None if nothing depends on it.

        Args:
            batch: the number of observations.
            body: the body, if its keys can name episodes.
            batched: whether the body has a list of observations.

        Raises:
            EpisodeAmbiguous: a header names the episode of several observations.
            OptionInvalid: a key of the body is invalid, or contradicts a header.
        """
        if body and not body.keys().isdisjoint(PLURAL_KEYS if batched else KEYS):
            claims = _plural_claims(body, batch) if batched else [Claim(*map(body.get, KEYS))]
            is_one = not batched or self.claim is not None
            if self.claim is not None:
                claims = [self._merged(claims)]
            _check(claims, batched=batched)
            episodes = self._episodes(claims)
            return Origin(self.protocol, episodes, explores=is_one and self._explores(episodes.ids[0]))
        if self.claim is None:
            return self.unnamed
        if batch != 1:
            raise EpisodeAmbiguous(batch)
        name, step, reward = self.claim
        hashed, rewards = self.hashed(name), None if reward is None else (reward,)
        episodes = Episodes((hashed,), (NO_STEP if step is None else step,), rewards)
        return Origin(self.protocol, episodes, explores=self._explores(hashed))

    def _explores(self, episode: bytes) -> bool:
        return self.explore_share > 0 and explores(episode, self.explore_share)

    def _merged(self, claims: Sequence[Claim]) -> Claim:
        """Return the claims of headers and body as one. Raises EpisodeAmbiguous, OptionInvalid."""
        if len(claims) != 1 or self.claim is None:
            raise EpisodeAmbiguous(len(claims))
        for key, inside, outside in zip(KEYS, claims[0], self.claim, strict=True):
            if inside is not None and outside is not None and inside != outside:
                raise OptionInvalid(key, describe(inside), f"{outside}, as in the header X-Episode-{key.title()}")
        pairs = zip(claims[0], self.claim, strict=True)
        return Claim(*(outside if inside is None else inside for inside, outside in pairs))

    def _episodes(self, claims: Sequence[Claim]) -> Episodes:
        rewards = [math.nan if claim.reward is None else float(claim.reward) for claim in claims]
        return Episodes(
            [NO_EPISODE if claim.episode is None else self.hashed(claim.episode) for claim in claims],
            [NO_STEP if claim.step is None else claim.step for claim in claims],
            None if all(map(math.isnan, rewards)) else rewards,
        )


def episode_of(headers: Headers) -> str | None:
    """Return the name of an episode in headers with names in lower case, None if there is no valid one."""
    name = dict(headers).get(ID, b"").decode("latin-1")
    return name if is_episode_name(name) else None


def is_episode_name(value: Json) -> bool:
    """Return whether a value can name an episode."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_number(value: Json) -> bool:
    """Return whether a value is a finite number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_step(value: Json) -> bool:
    return type(value) is int and 0 <= value <= MAX_STEP


def _check(claims: Sequence[Claim], *, batched: bool) -> None:
    """Raise OptionInvalid with the place of the first value that is invalid."""
    for index, claim in enumerate(claims):
        if fault := claim.fault():
            key, value, expected = fault
            raise OptionInvalid(f"{key}s[{index}]" if batched else key, describe(value), expected)


def _claim_of(headers: Headers) -> Claim:
    """Return what headers claim. Raises HeaderInvalid."""
    found = {name: value for name, value in headers if name[: len(PREFIX)] == PREFIX}
    name, step, reward = found.get(ID), found.get(STEP), found.get(REWARD)
    claim = Claim(
        None if name is None else name.decode("latin-1"),
        None if step is None else _integer(step),
        None if reward is None else _float(reward),
    )
    if fault := claim.fault():
        key, _, expected = fault
        header = b"x-episode-" + {"episode": b"id"}.get(key, key.encode())
        raise HeaderInvalid(header.decode().title(), found[header].decode("latin-1")[:MAX_EPISODE_LENGTH], expected)
    return claim


def _integer(value: bytes) -> Json:
    """Return the integer, or a text that is none."""
    return int(value) if value.isdigit() and len(value) <= len(str(MAX_STEP)) else value.decode("latin-1")


def _float(value: bytes) -> Json:
    """Return the number, or a text that is none."""
    try:
        return float(value)
    except ValueError:
        return value.decode("latin-1")


def _plural_claims(body: Mapping[str, Json], batch: int) -> list[Claim]:
    """Return the claim of each observation of a list. Raises OptionInvalid."""
    columns = []
    for key in PLURAL_KEYS:
        values = body.get(key)
        if values is None:
            values = [None] * batch
        if type(values) is not list or len(values) != batch:
            found = f"a list of {len(values)}" if type(values) is list else describe(values)
            raise OptionInvalid(key, found, f"a list of one value or null per observation, {batch}")
        columns.append(values)
    return [Claim(*row) for row in zip(*columns, strict=True)]

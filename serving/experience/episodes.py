"""The episodes that the observations of a request belong to, and the seeds of noise that follow from them."""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

EPISODE_BYTES = 16
NO_EPISODE = bytes(EPISODE_BYTES)
"""Stands for the episode of an observation that belongs to none."""
NO_STEP = -1
"""Stands for the step of an observation whose request does not give it."""
MAX_STEP = 2**53
"""The largest step: JSON numbers above it are not exact."""
MAX_EPISODE_LENGTH = 128
"""The maximum length of an episode's name, in bytes."""

_STEP = struct.Struct("<q")


class EpisodeHasher:
    """Turns the names that clients give to episodes into the keyed hashes under which they are stored.

    Args:
        key: a secret that all replicas share. Without it, whoever can guess a name can find its hash.
    """

    def __init__(self, key: bytes = b"") -> None:
        # BLAKE2b takes keys of up to 64 bytes.
        self._key = blake2b(key, digest_size=32).digest() if key else b""

    def __call__(self, name: str) -> bytes:
        """Return the hash of a name, EPISODE_BYTES long."""
        return blake2b(name.encode(), digest_size=EPISODE_BYTES, key=self._key).digest()


class Episodes(NamedTuple):
    """The episode and the step of each observation of a request."""

    ids: Sequence[bytes]
    """The hash of each observation's episode, or NO_EPISODE."""
    steps: Sequence[int]
    """The step of each observation in its episode, counted from 0, or NO_STEP."""
    rewards: Sequence[float] | None = None
    """The reward that followed the action of the step before each observation; NaN where the request gives none."""

    def seeds(self, policy: bytes) -> list[int] | None:
        """Return the seed of the noise for each observation, None unless all have an episode and a step.

        It follows from the policy's digest, the episode and the step: a request that is sent again, to any replica,
        draws the same action.
        """
        if NO_EPISODE in self.ids or NO_STEP in self.steps:
            return None
        return [noise_seed(policy, each, step) for each, step in zip(self.ids, self.steps, strict=True)]


class Seeds(NamedTuple):
    """The seeds that the noise of a request was drawn with."""

    seed: int | None
    """One seed for all rows: row i has the noise of row i of `Noise.draw(rows, seed)`."""
    rows: Sequence[int] = ()
    """Or a seed for each row, whose noise is that of `Noise.draw(1, seed)`."""


class Arm(NamedTuple):
    """The arm of an experiment that a request belongs to."""

    name: str
    """CHAMPION or CHALLENGER."""
    experiment: bytes
    """The payload of the EXPERIMENT record that describes the experiment."""


class Origin(NamedTuple):
    """Where the observations of a request come from, for the journal."""

    protocol: int
    """The protocol's index in `records.PROTOCOLS`."""
    episodes: Episodes | None
    """None if the request names no episode."""
    seeds: Seeds | None = None
    """None if the actions are greedy."""
    arm: Arm | None = None
    """None if the request is not part of an experiment."""
    explores: bool = False
    """Whether the actions are sampled although the request does not say so: its episode is in `explore_share`."""


def noise_seed(policy: bytes, episode: bytes, step: int) -> int:
    """Return the seed of the noise for one step of an episode, from 0 to 2**64 - 1."""
    hashed = blake2b(episode + _STEP.pack(step), digest_size=8, key=policy[:32], person=b"noise").digest()
    return int.from_bytes(hashed, "little")

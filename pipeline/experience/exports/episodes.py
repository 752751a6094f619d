"""Chooses the whole episodes to export, and reads them as arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.experience.exports.errors import ObservationsNotRecorded, RewardsUnreported
from pipeline.experience.exports.spaces import PolicySpaces
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.tables import DIGEST_KEY, tensor_of

OBS, ACTIONS, NEW_OBS = "obs", "actions", "new_obs"

KEEP, DROP = "keep", "drop"
"""What becomes of episodes with unreported rewards."""

Arrays = tuple[NDArray[Any], ...]
"""One array per leaf of a space."""


@dataclass(frozen=True)
class Episode:
    """One episode. A step is an observation, the action for it, and the reward that followed."""

    id: str
    observations: Arrays
    """`[steps, *shape]` each."""
    final_observation: Arrays | None
    """What followed the last action, `[*shape]` each; None if nobody reported it."""
    actions: Arrays
    """`[steps, *shape]` each."""
    rewards: NDArray[np.float64]
    terminated: bool
    """Whether it ended in a terminal state; else it was truncated, or nobody reported its end."""
    action_logp: NDArray[np.float32]
    """`[steps]`: the log-probability of the action, NaN where it is unknown."""

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def all_observations(self) -> Arrays:
        """The observations with the final one, `[steps + 1, *shape]` each."""
        assert self.final_observation is not None  # noqa: S101 - `followed` gives it
        pairs = zip(self.observations, self.final_observation, strict=True)
        return tuple(np.concatenate([steps, final[np.newaxis]]) for steps, final in pairs)

    def followed(self) -> "Episode | None":
        """Return the episode with an observation after each action, for formats that need it.

        Nothing that is learned depends on what follows a terminal state, so the last observation stands for it. If
        another final observation is unknown, the episode ends one step earlier; None if it had only one.
        """
        if self.final_observation is not None:
            return self
        last = tuple(array[-1] for array in self.observations)
        if self.terminated:
            return replace(self, final_observation=last)
        if len(self) == 1:
            return None
        return replace(
            self,
            observations=_cut(self.observations),
            final_observation=last,
            actions=_cut(self.actions),
            rewards=self.rewards[:-1],
            action_logp=self.action_logp[:-1],
        )


@dataclass
class Counts:
    """What an export contains, and what it leaves out."""

    episodes: int = 0
    steps: int = 0
    versions: set[int] = field(default_factory=set)
    incomplete: int = 0
    """Episodes that lack decisions, and so observations."""
    unreported: int = 0
    """Episodes with unreported rewards, if those are dropped."""
    shortened: int = 0
    """Episodes that end one step earlier, because nobody reported their final observation."""
    single: int = 0
    """Episodes of one step for which that leaves nothing."""
    mixed: int = 0
    """Episodes of which other versions than the chosen ones decided a part."""

    def add(self, episode: Episode) -> None:
        """Count an exported episode."""
        self.episodes += 1
        self.steps += len(episode)


@dataclass(frozen=True)
class Selection:
    """The episodes to export.

    Args:
        whole: the whole episodes.
        spaces: the spaces of the policy.
        versions: the versions whose episodes are exported; None for all.
        unreported: KEEP or DROP; None if all rewards must have been reported.

    Raises:
        ObservationsNotRecorded: the server did not record the observations.
        RewardsUnreported: rewards are unreported, and `unreported` is None.
    """

    whole: WholeEpisodes
    spaces: PolicySpaces
    versions: frozenset[int] | None = None
    unreported: str | None = None

    def __post_init__(self) -> None:
        for column in self.spaces.columns("observation", OBS):
            index = self.whole.schema.get_field_index(column)
            if index < 0:
                raise ObservationsNotRecorded(self.whole.model, "none")
            if DIGEST_KEY in (self.whole.schema.field(index).metadata or {}):
                raise ObservationsNotRecorded(self.whole.model, "digest")
        if self.unreported is None and (lacking := self._candidates.filter(self._lacks_rewards)).num_rows:
            raise RewardsUnreported(lacking.num_rows, self._candidates.num_rows)

    @property
    def size(self) -> int:
        """The number of episodes that `episodes` looks at."""
        return int(self._candidates.num_rows)

    def episodes(self, counts: Counts, *, followed: bool) -> Iterator[Episode]:
        """Yield the episodes, ordered by id, and count them.

        Args:
            counts: is updated.
            followed: whether the format needs an observation after each action: `Episode.followed`.
        """
        in_versions = self._summary.num_rows if self.versions is None else pc.sum(self._in_versions).as_py() or 0
        counts.incomplete = in_versions - self._candidates.num_rows
        dropped = set()
        if self.unreported == DROP:
            dropped = set(self._candidates.filter(self._lacks_rewards)["eps_id"].to_pylist())
        counts.unreported = len(dropped)
        chosen = set(self._candidates["eps_id"].to_pylist()) - dropped
        for table in self.whole.tables(self._columns):
            for episode, versions in self._read(table, chosen):
                if self.versions is not None and not versions <= self.versions:
                    counts.mixed += 1
                    continue
                complete = episode.followed() if followed else episode
                if complete is None:
                    counts.single += 1
                    continue
                counts.shortened += len(complete) < len(episode)
                counts.versions |= versions
                counts.add(complete)
                yield complete

    @cached_property
    def _summary(self) -> pa.Table:
        return self.whole.summary()

    @cached_property
    def _in_versions(self) -> pa.ChunkedArray:
        """Whether each episode of the summary began with one of the versions."""
        return pc.is_in(self._summary["version"], pa.array(sorted(self.versions or ()), pa.int32()))

    @cached_property
    def _candidates(self) -> pa.Table:
        """The summary of the complete episodes that began with one of the versions."""
        summary = self._summary if self.versions is None else self._summary.filter(self._in_versions)
        return summary.filter(summary["complete"])

    @property
    def _lacks_rewards(self) -> pa.ChunkedArray:
        return pc.less(self._candidates["rewards_reported"], self._candidates["decisions"])

    @property
    def _columns(self) -> list[str]:
        observations = self.spaces.columns("observation", OBS), self.spaces.columns("observation", NEW_OBS)
        return [
            *("eps_id", "rewards", "terminateds", "action_logp", "version"),
            *(*observations[0], *observations[1], *self.spaces.columns("action", ACTIONS)),
        ]

    def _read(self, table: pa.Table, chosen: set[str]) -> Iterator[tuple[Episode, set[int]]]:
        """Yield the chosen episodes of a part, with the versions that decided in them."""
        ids = table["eps_id"].combine_chunks().dictionary_encode()
        starts = np.flatnonzero(np.diff(ids.indices.to_numpy(), prepend=-1))
        ends = np.append(starts[1:], table.num_rows)
        observations, actions = self._tensors(table, "observation", OBS), self._tensors(table, "action", ACTIONS)
        finals = self._finals(table.take(pa.array(ends - 1)))
        rewards, versions = table["rewards"].to_numpy(), table["version"].to_numpy()
        terminated = table["terminateds"].to_numpy()
        logp = table["action_logp"].to_numpy().astype(np.float32)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            name = ids.dictionary[number].as_py()
            if name in chosen:
                steps = slice(start, end)
                yield (
                    Episode(
                        id=name,
                        observations=tuple(each[steps] for each in observations),
                        final_observation=finals[number],
                        actions=tuple(each[steps] for each in actions),
                        rewards=rewards[steps],
                        terminated=bool(terminated[end - 1]),
                        action_logp=logp[steps],
                    ),
                    set(versions[steps].tolist()),
                )

    def _tensors(self, table: pa.Table, role: str, root: str) -> Arrays:
        return tuple(tensor_of(table[name], self.whole.schema.field(name)) for name in self.spaces.columns(role, root))

    def _finals(self, last_rows: pa.Table) -> Sequence[Arrays | None]:
        """Return the final observation of each episode, from its last row."""
        columns = self.spaces.columns("observation", NEW_OBS)
        known = np.logical_and.reduce([last_rows[name].is_valid().to_numpy() for name in columns])
        tensors = self._tensors(last_rows.filter(pa.array(known)), "observation", NEW_OBS)
        finals: list[Arrays | None] = [None] * len(known)
        for place, row in enumerate(np.flatnonzero(known)):
            finals[row] = tuple(each[place] for each in tensors)
        return finals


def _cut(arrays: Arrays) -> Arrays:
    """Return arrays without the last step."""
    return tuple(array[:-1] for array in arrays)

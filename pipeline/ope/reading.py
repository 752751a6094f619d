"""Reads whole episodes as arrays for off-policy evaluation."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.experience.exports.episodes import ACTIONS, DROP, NEW_OBS, OBS
from pipeline.experience.exports.errors import ObservationsNotRecorded, RewardsUnreported
from pipeline.experience.whole_episodes import UNREPORTED, WholeEpisodes
from pipeline.ope.errors import NoUsableEpisodes
from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.logs import NOTHING, UNKNOWN, Ints, Logs
from serving.experience.tables import DIGEST_KEY, tensor_of
from serving.policy.policy import Policy
from serving.policy.spaces import leaves

_SAME_LOG_PROB = 1e-2
"""How far a recorded log-probability may be from that of the recorded inputs of the distribution."""


@dataclass
class LeftOut:
    """How many episodes cannot be used, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        """Count episodes."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count

    @property
    def phrases(self) -> list[str]:
        """A phrase for each reason."""
        return [f"{count:,} {reason}" for reason, count in self.counts.items()]


@dataclass(frozen=True)
class Reader:
    """Reads the episodes of a layout.

    Attributes:
        whole: The whole episodes.
        policy: A policy with the same spaces.
        most: The most episodes to read. They are a random sample, because their ids are hashes.
        unreported: What becomes of episodes with unreported rewards: KEEP, DROP, or None for an error.
    """

    whole: WholeEpisodes
    policy: Policy
    most: int
    unreported: str | None = None

    def read(self, left_out: LeftOut) -> Logs:
        """Return the episodes that can be used, and count the others.

        Raises:
            ObservationsNotRecorded: Digests of the observations were recorded, or nothing.
            RewardsUnreported: Rewards are unreported, and `unreported` is None.
            NoUsableEpisodes: None is left.
            EpisodesReplaced, ExperienceDamaged, StoreUnavailable: As `WholeEpisodes.tables`.
        """
        self._require_observations()
        chosen = self._chosen(left_out)
        parts = []
        for table in self.whole.tables(self._columns):
            mine = table.filter(pc.is_in(table["eps_id"], chosen))
            if mine.num_rows:
                parts.append(mine)
        if not parts:
            raise NoUsableEpisodes(self.whole.model, _reasons(left_out))
        return self._logs(pa.concat_tables(parts).combine_chunks(), left_out)

    def _require_observations(self) -> None:
        for name in self._names(OBS):
            index = self.whole.schema.get_field_index(name)
            if index < 0:
                raise ObservationsNotRecorded(self.whole.model, "none")
            if DIGEST_KEY in (self.whole.schema.field(index).metadata or {}):
                raise ObservationsNotRecorded(self.whole.model, "digest")

    def _chosen(self, left_out: LeftOut) -> pa.Array:
        """Return the ids of the episodes that the summary allows. Raises RewardsUnreported."""
        kept = self.whole.summary()
        for reason, allowed in (
            ("lack decisions", pc.field("complete")),
            ("have no reported end", pc.field("done") != UNREPORTED),
            ("were decided by several versions", pc.field("versions") == 1),
        ):
            before, kept = kept.num_rows, kept.filter(allowed)
            left_out.add(reason, before - kept.num_rows)
        reported = kept.filter(pc.field("rewards_reported") == pc.field("decisions"))
        if (lacking := kept.num_rows - reported.num_rows) and self.unreported is None:
            raise RewardsUnreported(lacking, kept.num_rows)
        if self.unreported == DROP:
            left_out.add("have unreported rewards", lacking)
            kept = reported
        return kept["eps_id"].combine_chunks()[: self.most]

    @property
    def _columns(self) -> list[str]:
        columns = ["eps_id", "rewards", "terminateds", "version", "mode", "action_logp", "action_dist_inputs"]
        return [*columns, *self._names(OBS), *self._names(NEW_OBS), *self._names(ACTIONS)]

    def _names(self, root: str) -> list[str]:
        """Return the columns of observations or actions, in the order of their leaves."""
        space = self.policy.action_space if root == ACTIONS else self.policy.observation_space
        return [leaf.tensor(root) for leaf in leaves(space)]

    def _logs(self, table: pa.Table, left_out: LeftOut) -> Logs:
        """Return the usable episodes of a table of steps. Raises NoUsableEpisodes."""
        table, lengths = self._usable(table, left_out)
        if not len(lengths):
            raise NoUsableEpisodes(self.whole.model, _reasons(left_out))
        starts, last = np.cumsum(lengths) - lengths, np.cumsum(lengths) - 1
        distribution = ActionDistribution(self.policy.action_space)
        finals, next_state = self._followers(table, last)
        observed = self._tensors(table, OBS)
        return Logs(
            states=tuple(np.concatenate(pair) for pair in zip(observed, finals, strict=True)),
            actions=distribution.coded(self._tensors(table, ACTIONS)),
            rewards=table["rewards"].to_numpy(),
            inputs=_inputs(table, distribution.inputs),
            next_state=next_state,
            lengths=lengths,
            explored=pc.equal(table["mode"], "explore").to_numpy()[starts],
            versions=table["version"].to_numpy()[starts].astype(np.int64),
        )

    def _usable(self, table: pa.Table, left_out: LeftOut) -> tuple[pa.Table, Ints]:
        """Return the steps of the episodes with known propensities, and the episodes' lengths."""
        size = ActionDistribution(self.policy.action_space).inputs
        explored = pc.equal(table["mode"], "explore").to_numpy()
        known = pc.fill_null(pc.equal(pc.list_value_length(table["action_dist_inputs"]), size), False).to_numpy()  # noqa: FBT003
        rows = np.flatnonzero(known & explored)
        known[rows] &= self._agrees(table.take(pa.array(rows)), size)
        code = table["eps_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        count, total = np.bincount(code, explored), np.bincount(code)
        one_mode = (count == 0) | (count == total)
        all_known = np.bincount(code, ~known) == 0
        left_out.add("mix greedy and sampled actions", int((~one_mode).sum()))
        left_out.add("have actions of unknown probability", int((one_mode & ~all_known).sum()))
        keep = one_mode & all_known
        return table.filter(pa.array(keep[code])).combine_chunks(), total[keep]

    def _agrees(self, table: pa.Table, size: int) -> NDArray[np.bool_]:
        """Return whether the recorded log-probability of sampled actions is that of their distribution's inputs.

        The propensity is no measure: as a float32, it is 0 for many improbable choices or numbers together.
        """
        distribution = ActionDistribution(self.policy.action_space)
        recorded = table["action_logp"].to_numpy().astype(np.float64)
        if not distribution.is_discrete:  # a density, also of the numbers that the graph has clipped
            return np.asarray(np.isfinite(recorded), np.bool_)
        found = distribution.log_prob(_inputs(table, size), distribution.coded(self._tensors(table, ACTIONS)))
        same: NDArray[np.bool_] = np.isclose(found, recorded, rtol=0, atol=_SAME_LOG_PROB)
        return same

    def _followers(self, table: pa.Table, last: Ints) -> tuple[tuple[NDArray[np.generic], ...], Ints]:
        """Return the final observations that are known and needed, and the place of each step's next state."""
        following = np.arange(1, table.num_rows + 1)
        names, ends = self._names(NEW_OBS), table.take(pa.array(last))
        reported = np.logical_and.reduce([ends[name].is_valid().to_numpy() for name in names])
        terminated = ends["terminateds"].to_numpy()
        known = reported & ~terminated
        following[last] = np.where(terminated, NOTHING, UNKNOWN)
        following[last[known]] = table.num_rows + np.arange(known.sum())
        return self._tensors(ends.filter(pa.array(known)), NEW_OBS), following

    def _tensors(self, table: pa.Table, root: str) -> tuple[NDArray[np.generic], ...]:
        return tuple(tensor_of(table[name], self.whole.schema.field(name)) for name in self._names(root))


def _inputs(table: pa.Table, size: int) -> NDArray[np.float64]:
    flat = pc.list_flatten(table["action_dist_inputs"].combine_chunks()).to_numpy(zero_copy_only=False)
    inputs: NDArray[np.float64] = flat.astype(np.float64).reshape(table.num_rows, size)
    return inputs


def _reasons(left_out: LeftOut) -> str:
    return ", ".join(left_out.phrases) or "there is none"

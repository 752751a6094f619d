"""The summary of whole episodes: one row per episode."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.experience.compaction.groups import Groups, Ints
from pipeline.experience.compaction.reports import NONE, EpisodeReports
from pipeline.experience.whole_episodes import SUMMARY_SCHEMA, UNREPORTED
from serving.experience.tables import EXPERIMENT_FIELDS


def summary_table(steps: pa.Table, groups: Groups, told: EpisodeReports, length: Ints, layout: int) -> pa.Table:
    """Return one row for each episode that has steps, by `eps_id`.

    Args:
        steps: the steps of whole episodes.
        groups: the groups of these rows.
        told: what was reported of the episodes.
        length: the reported length of each episode, at most 0 if there is none.
        layout: the number of the layout.
    """
    episodes = np.flatnonzero(groups.ends > groups.starts)
    first, decisions = groups.starts[episodes], (groups.ends - groups.starts)[episodes]
    if not len(episodes):
        return SUMMARY_SCHEMA.empty_table()
    last_t = groups.t[groups.ends[episodes] - 1]
    told_length = length[episodes]
    lengths = np.where(told_length > 0, told_length, last_t + 1)
    reported = told.last_time[episodes]
    time = steps["time"].cast(pa.int64()).to_numpy()
    sums = pa.array(np.add.reduceat(steps["rewards"].to_numpy(), first))
    columns = {
        "eps_id": steps["eps_id"].take(pa.array(first)),
        "version": steps["version"].take(pa.array(first)),
        "versions": _versions(steps["version"].to_numpy(), groups)[episodes].astype(np.int32),
        "start": np.minimum.reduceat(time, first),
        "end": np.maximum.reduceat(time, first),
        "length": lengths,
        "return": pc.coalesce(told.last("return").take(pa.array(episodes)), sums),
        "done": pc.fill_null(told.last("done").take(pa.array(episodes)), UNREPORTED),
        "rewards_reported": np.add.reduceat(
            steps["reward_reported"].to_numpy(zero_copy_only=False).astype(np.int64), first
        ),
        "complete": decisions == lengths,
        "decisions": decisions,
        "layout": np.full(len(episodes), layout, np.int32),
        **{field.name: steps[field.name].take(pa.array(first)) for field in EXPERIMENT_FIELDS},
        "reported": pa.array(reported, mask=reported == NONE),
    }
    return pa.table(columns).cast(SUMMARY_SCHEMA)


def _versions(version: Ints, groups: Groups) -> Ints:
    """Return how many different versions each episode has."""
    pairs = np.unique(groups.code << 32 | version.astype(np.int64))
    return np.bincount(pairs >> 32, minlength=groups.count)

"""Joins the decisions of one bucket with what was reported of their episodes. All of it is done in whole columns."""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.experience.compaction.columns import NEW_OBS, OBS, Arrays
from pipeline.experience.compaction.groups import Groups, Ints, episode_codes
from pipeline.experience.compaction.reports import NONE, EpisodeReports, Reports
from pipeline.experience.compaction.summary import summary_table
from pipeline.experience.whole_episodes import TERMINATED
from serving.experience.tables import EXPERIMENT_FIELDS

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class JoinOptions:
    """What the user decides about episodes that clients did not report whole."""

    now_ns: int
    reward_wait_s: float = 3600.0
    """Without an end reported, an episode is whole when nothing has happened to it for this time."""
    default_reward: float = 0.0
    """Stands for a reward that nobody reported."""


@dataclass
class JoinCounts:
    """What a join left out, and what it found."""

    episodes: int = 0
    decisions: int = 0
    duplicates: int = 0
    """Decisions that were recorded more than once, or repeated by the client."""
    after_end: int = 0
    """Decisions after the length that the client reported; the first one is the final observation."""
    pending_episodes: int = 0
    pending_decisions: int = 0
    """Of episodes that may go on."""
    unknown_feedback: int = 0
    """Feedback events for episodes without decisions."""

    def __iadd__(self, other: Self) -> Self:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self


@dataclass(frozen=True)
class Joined:
    """The whole episodes of one bucket and layout."""

    steps: pa.Table
    summary: pa.Table
    counts: JoinCounts


def join(decisions: pa.Table, reports: Reports, arrays: Arrays, layout: int, options: JoinOptions) -> Joined:
    """Return the whole episodes among decisions, the table of a bucket, sorted by episode and step."""
    episodes, code = episode_codes(decisions["episode"].combine_chunks())
    rows, groups = _in_order(decisions, code, len(episodes))
    counts = JoinCounts(duplicates=len(decisions) - len(rows))
    decisions = decisions.take(pa.array(rows)).combine_chunks()
    told = reports.of(episodes)
    reward, reported = _rewards(decisions, groups, told, options.default_reward)
    length = pc.fill_null(told.last("length"), NONE).to_numpy()
    pending = _pending(decisions, groups, told, options)
    beyond = (length[groups.code] > 0) & (groups.t >= length[groups.code])
    kept = ~pending[groups.code] & ~beyond
    counts.pending_decisions = int(pending[groups.code].sum())
    counts.pending_episodes = int(pending.sum())
    counts.after_end = int((beyond & ~pending[groups.code]).sum())
    new = _new_observations(decisions, groups, told, arrays, kept, length)
    remaining = groups.kept(kept)
    table = pa.table(
        _ended(remaining, told, length)
        | _copied(decisions.filter(pa.array(kept)), arrays)
        | {name: column.filter(pa.array(kept)) for name, column in new.items()}
        | {"eps_id": _hex(episodes).take(pa.array(remaining.code)), "t": remaining.t}
        | {"rewards": reward[kept], "reward_reported": reported[kept]}
    )
    steps = pa.table([table[name] for name in arrays.schema.names], schema=arrays.schema)
    summary = summary_table(steps, remaining, told, length, layout)
    counts.decisions, counts.episodes = len(steps), len(summary)
    return Joined(steps, summary, counts)


def _in_order(decisions: pa.Table, code: Ints, episodes: int) -> tuple[Ints, Groups]:
    """Return the rows that stay, by episode and step, without duplicates.

    Of decisions with equal episode and step, the latest stays. In an episode in which a decision has no step, the
    order of time gives the steps.
    """
    time = decisions["time"].cast(pa.int64()).to_numpy()
    step = pc.fill_null(decisions["step"], NONE).to_numpy()
    order = np.lexsort((time, step, code))
    code, step, time = code[order], step[order], time[order]
    repeated = (code[1:] == code[:-1]) & (step[1:] == step[:-1]) & (step[1:] != NONE)
    keep = np.append(~repeated, True) & ~_copies(decisions, order, step)
    order, code, step, time = order[keep], code[keep], step[keep], time[keep]
    by_time = np.zeros(episodes, np.bool_)
    by_time[code[step == NONE]] = True
    if by_time.any():
        again = np.lexsort((np.where(by_time[code], time, step), code))
        order, code, step = order[again], code[again], step[again]
        rank = np.arange(len(code)) - np.searchsorted(code, code)
        step = np.where(by_time[code], rank, step)
    return order, Groups(code, step, episodes)


def _copies(decisions: pa.Table, order: Ints, step: Ints) -> Bools:
    """Return which of the ordered rows without a step were read before: same replica, segment, offset and row."""
    copies = np.zeros(len(order), np.bool_)
    places = np.flatnonzero(step == NONE)
    if len(places):
        names = ("source", "segment", "offset", "row")
        identities = np.stack([decisions[name].to_numpy()[order[places]].astype(np.int64) for name in names], axis=1)
        _, first = np.unique(identities, axis=0, return_index=True)
        copies[places] = True
        copies[places[first]] = False
    return copies


def _rewards(decisions: pa.Table, groups: Groups, told: EpisodeReports, default: float) -> tuple[Floats, Bools]:
    """Return the reward of each row, and whether it was reported: by feedback, else by the request after it."""
    given = decisions["previous_reward"].combine_chunks()
    next_given = np.append(given.is_valid().to_numpy(zero_copy_only=False)[1:], False)
    reported = groups.follows & next_given
    reward = np.where(reported, np.append(pc.fill_null(given, default).to_numpy()[1:], default), default)
    row, value = told.rewards(groups)
    reward[row], reported[row] = value, True  # of repeated rows the last value stays
    return reward, reported


def _pending(decisions: pa.Table, groups: Groups, told: EpisodeReports, options: JoinOptions) -> Bools:
    """Return which episodes may go on: no end is reported, and something happened a short while ago."""
    last = told.last_time
    np.maximum.at(last, groups.code, decisions["time"].cast(pa.int64()).to_numpy())
    recent = last > options.now_ns - int(options.reward_wait_s * 1e9)
    unreported: Bools = told.last("done").is_null().to_numpy(zero_copy_only=False)
    return recent & unreported


def _new_observations(
    decisions: pa.Table, groups: Groups, told: EpisodeReports, arrays: Arrays, kept: Bools, length: Ints
) -> dict[str, pa.Array]:
    """Return the observation after each row: that of the next step, or the final one that the client reported."""
    rows = len(decisions)
    index = np.where(groups.follows, np.arange(1, rows + 1), NONE)
    columns, final = told.final_observation(arrays.observations)
    remaining = groups.kept(kept)
    episodes = np.flatnonzero((final != NONE) & (remaining.ends > remaining.starts))
    last = np.flatnonzero(kept)[remaining.ends[episodes] - 1]
    whole = _is_last_step(groups.t[last], length[episodes])
    index[last[whole]] = rows + final[episodes[whole]]
    take = pa.array(index, mask=index == NONE)
    fields = arrays.observations
    values = [decisions[field.name].combine_chunks() for field in fields]
    if columns:
        values = [pa.concat_arrays(each) for each in zip(values, columns, strict=True)]
    return {
        NEW_OBS + field.name.removeprefix(OBS): value.take(take) for field, value in zip(fields, values, strict=True)
    }


def _is_last_step(t: Ints, length: Ints) -> Bools:
    """Return whether steps are the last ones of episodes with these reported lengths."""
    last: Bools = (length <= 0) | (t == length - 1)
    return last


def _ended(groups: Groups, told: EpisodeReports, length: Ints) -> dict[str, Any]:
    """Return the columns that say where episodes end. Without its last steps, an episode is truncated."""
    last = np.append(groups.code[1:] != groups.code[:-1], True)[: len(groups.code)]
    terminated = pc.fill_null(pc.equal(told.last("done"), TERMINATED), False)  # noqa: FBT003 - a value
    ends = terminated.to_numpy(zero_copy_only=False)[groups.code] & _is_last_step(groups.t, length[groups.code])
    return {"terminateds": last & ends, "truncateds": last & ~ends}


def _copied(decisions: pa.Table, arrays: Arrays) -> dict[str, Any]:
    """Return the columns that are those of the decisions."""
    fields = (*EXPERIMENT_FIELDS, *arrays.fields)
    names = ("action_logp", "action_dist_inputs", "version", "time", *(field.name for field in fields))
    explored = decisions["explored"]
    propensity = pc.if_else(explored, pc.exp(decisions["action_logp"]), pa.scalar(1.0, pa.float32()))
    return {name: decisions[name] for name in names} | {
        "mode": pc.if_else(explored, "explore", "greedy"),
        "propensity": propensity,
    }


def _hex(episodes: pa.Array) -> pa.Array:
    return pa.array([each.hex() for each in episodes.to_pylist()], pa.string())

"""Reads the live episodes of a version as sketches, from whole episodes."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.drift.errors import EpisodesTooFew, ObservationsNotRecorded, ReferenceDiffers
from pipeline.experience.compaction.columns import OBS, is_digest, tensor_name
from pipeline.experience.errors import NotCompacted
from pipeline.experience.whole_episodes import UNREPORTED, WholeEpisodes
from pipeline.reference.dimensions import Dimensions
from pipeline.reference.reference import Reference
from pipeline.reference.sketches import Sketches, Steps, max_steps, stride
from serving.experience.tables import tensor_of

_HOUR_NS = 3600 * 10**9
_GREEDY = "greedy"


@dataclass(frozen=True)
class Selection:
    """Which episodes are compared: the newest ones of a version.

    Attributes:
        version: The version that made all decisions of an episode.
        episodes: How many at most.
        window_hours: How long before the newest episode of the version they may have ended; None for any time.
    """

    version: int
    episodes: int = 1000
    window_hours: float | None = None


@dataclass(frozen=True)
class Live:
    """The live episodes that were read.

    Attributes:
        sketches: Their sketches.
        left_out: How many of the selected episodes were not read, by reason.
        first_ns, last_ns: When the first and the last of them ended, in ns since 1970.
    """

    sketches: Sketches
    left_out: dict[str, int]
    first_ns: int
    last_ns: int


def latest_version(whole: WholeEpisodes) -> int:
    """Return the version of the episode that ended last. Raises NotCompacted if all episodes were forgotten."""
    summary = whole.summary()
    if not len(summary):
        raise NotCompacted(whole.store.uri, whole.model)
    return int(summary.sort_by([("end", "descending")])["version"][0].as_py())


def read_live(
    whole: WholeEpisodes,
    reference: Reference,
    dimensions: Dimensions,
    selection: Selection,
    alpha: float,
    advance: Callable[[], object] = lambda: None,
) -> Live:
    """Read the selected episodes. Memory is bounded by their number.

    Episodes with sampled actions are left out, because the reference consists of greedy ones, and so are episodes that
    lack decisions, or an end where clients report ends: the reference has none that were cut.

    Args:
        whole: The whole episodes with the layout of the version.
        reference: The reference, whose number of quantiles the sketches have.
        dimensions: The dimensions of the version's observations.
        selection: Which episodes to read.
        alpha: The level of the comparison, for the message of EpisodesTooFew.
        advance: Called after each file.

    Raises:
        ObservationsNotRecorded, ReferenceDiffers, EpisodesTooFew: The episodes cannot be compared.
        EpisodesReplaced, ExperienceDamaged, StoreUnavailable: The episodes cannot be read.
    """
    fields = [field for field in whole.schema if field.name.split(".")[0] == OBS]
    if not fields or any(map(is_digest, fields)):
        raise ObservationsNotRecorded(whole.store.uri)
    if dimensions.all != reference.dimensions:
        raise ReferenceDiffers(whole.model, selection.version)
    chosen, left_out = _chosen(whole.summary(), selection)
    ends = dict(zip(chosen["eps_id"].to_pylist(), chosen["end"].cast(pa.int64()).to_pylist(), strict=True))
    steps: dict[str, Steps] = {}
    for table in whole.tables(["eps_id", "mode", *(field.name for field in fields)]):
        for episode, rows in _episodes(table, ends):
            if not pc.all(pc.equal(rows["mode"], _GREEDY)).as_py():
                left_out["sampled actions"] += 1
                continue
            steps[episode] = _steps(rows, fields, dimensions)
        advance()
    if not steps:
        raise EpisodesTooFew(selection.version, 0, described(left_out), alpha)
    kept = [ends[episode] for episode in steps]
    sketches = Sketches.of(list(steps.values()), dimensions.all, reference.quantiles_per_episode)
    return Live(sketches, dict(left_out), min(kept), max(kept))


def described(left_out: dict[str, int]) -> str:
    """Return the episodes that were left out as a part of a sentence; empty if there are none."""
    found = [f"{count:,} with {reason}" for reason, count in left_out.items() if count]
    return f" (left out: {', '.join(found)})" if found else ""


def _chosen(summary: pa.Table, selection: Selection) -> tuple[pa.Table, Counter[str]]:
    own = summary.filter(pc.equal(summary["version"], selection.version)).sort_by([("end", "descending")])
    if selection.window_hours is not None and len(own):
        ends = own["end"].cast(pa.int64())
        own = own.filter(pc.greater_equal(ends, ends[0].as_py() - int(selection.window_hours * _HOUR_NS)))
    own = own.slice(0, selection.episodes)
    pure = own.filter(pc.equal(own["versions"], 1))
    complete = pure.filter(pure["complete"])
    ended = complete.filter(pc.not_equal(complete["done"], UNREPORTED))
    kept = ended if len(ended) else complete  # of clients that never report an end
    left_out = {
        "several versions": len(own) - len(pure),
        "missing decisions": len(pure) - len(complete),
        "no reported end": len(complete) - len(kept),
    }
    return kept, Counter(left_out)


def _episodes(table: pa.Table, wanted: dict[str, int]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each wanted episode of a table that is sorted by episode."""
    runs = pc.run_end_encode(table["eps_id"].combine_chunks()) if len(table) else None
    if runs is None:
        return
    start = 0
    for episode, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        if episode in wanted:
            yield episode, table.slice(start, end - start)
        start = end


def _steps(rows: pa.Table, fields: list[pa.Field], dimensions: Dimensions) -> Steps:
    kept: NDArray[np.int64] = np.arange(0, len(rows), stride(len(rows), max_steps(len(dimensions))))
    taken = rows.take(kept) if len(kept) < len(rows) else rows
    observations = {tensor_name(field): tensor_of(taken[field.name], field) for field in fields}
    return Steps(len(rows), dimensions.numbers(observations))

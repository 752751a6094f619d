"""The champion's returns, as recorded experience has them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.experience.errors import NotCompacted, VersionNotRecorded
from pipeline.experience.raw import choose_model, open_experience, s3_explained
from pipeline.experience.whole_episodes import SUMMARY_FILE, UNREPORTED, read_current, read_file
from pipeline.experiment.errors import ChampionNotRecorded
from pipeline.experiment.plan import Baseline

_NS_PER_DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Recorded:
    """The returns of a version in recorded experience.

    Attributes:
        model: The registered model.
        version: The version with the latest episode, other than the challenger: the champion.
        episodes: Its whole episodes.
        baseline: Their returns, and the rate of all versions' episodes together.
    """

    model: str
    version: int
    episodes: int
    baseline: Baseline


def recorded_champion(uri: str, model: str | None, challenger: int) -> Recorded:
    """Return the returns of the version with the latest episode, the challenger apart, from the episodes at a URI.

    Raises:
        ChampionNotRecorded: There are no whole episodes of another version.
        NotCompacted: There are no whole episodes.
        NoExperience, ModelNotRecorded, SeveralModels: There is nothing recorded, or it is not clear of which model.
        StoreUnavailable, S3Unusable, ExperienceDamaged, EpisodesReplaced: The experience cannot be read.
    """
    chosen, summary = _summary(uri, model)
    versions, start_ns = summary["version"].to_numpy(), summary["start"].cast(pa.int64()).to_numpy()
    others = versions != challenger
    if not others.any():
        raise ChampionNotRecorded(uri, chosen, challenger)
    return _returns(chosen, int(versions[others][np.argmax(start_ns[others])]), summary)


def recorded_returns(uri: str, model: str, version: int) -> Recorded:
    """Return the returns of a version, from the whole episodes at a URI.

    Raises:
        VersionNotRecorded: There are none of this version.
        Others: As `recorded_champion`.
    """
    chosen, summary = _summary(uri, model)
    recorded = sorted(set(summary["version"].to_pylist()))
    if version not in recorded:
        raise VersionNotRecorded(chosen, version, ", ".join(map(str, recorded)))
    return _returns(chosen, version, summary)


def _returns(model: str, version: int, summary: pa.Table) -> Recorded:
    own = summary["return"].to_numpy()[summary["version"].to_numpy() == version]
    rate = _episodes_per_day(summary["start"].cast(pa.int64()).to_numpy())
    return Recorded(model, version, len(own), Baseline(float(own.mean()), float(own.std()), rate))


def _summary(uri: str, model: str | None) -> tuple[str, pa.Table]:
    """Return the model, and a row for each of its whole episodes whose end was reported: the others have no return."""
    with s3_explained(uri):
        store = open_experience(uri)
        chosen = choose_model(store, model)
        current = read_current(store, chosen)
        if current is None:
            raise NotCompacted(uri, chosen)
        content = read_file(store, chosen, current, SUMMARY_FILE)
    summary = pq.read_table(pa.BufferReader(content), columns=["version", "start", "return", "done"])
    return chosen, summary.filter(pc.not_equal(summary["done"], UNREPORTED))


def _episodes_per_day(start_ns: NDArray[np.int64]) -> float | None:
    """Return the mean rate from the first episode's start to the last one's, None if there is no time between them."""
    span_ns = int(start_ns.max()) - int(start_ns.min())
    return len(start_ns) * _NS_PER_DAY / span_ns if span_ns else None

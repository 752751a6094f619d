"""Measures the drift of a version: its reference, its newest live episodes, and their comparison."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.drift.comparison import Comparison, compare
from pipeline.drift.errors import EpisodesTooFew
from pipeline.drift.live import Live, Selection, described, read_live
from pipeline.drift.references import fetch_reference, play_reference
from pipeline.experience.whole_episodes import WholeEpisodes
from pipeline.reference.dimensions import Dimensions
from pipeline.reference.reference import Reference
from serving.registry.registry import fetch, resolve

_LEAST_DIVISIONS = 20
"""The divisions of the episodes into two groups that may exceed the threshold, for alpha to be attained."""


@dataclass(frozen=True)
class Drift:
    """The drift of a version.

    Attributes:
        model: The registered model.
        version: The number of the version.
        reference: Its reference.
        live: The live episodes.
        comparison: How they differ.
        digest: The whole episodes that were read; see `pipeline experience compact`.
    """

    model: str
    version: int
    reference: Reference
    live: Live
    comparison: Comparison
    digest: str


def measure(
    whole: WholeEpisodes,
    selection: Selection,
    alpha: float,
    played: int | None = None,
    stage: Callable[[str, int], object] = lambda _about, _total: None,
    advance: Callable[[], object] = lambda: None,
) -> Drift:
    """Compare the newest live episodes of a version with its reference.

    Args:
        whole: The whole episodes with the layout of the version.
        selection: The version, and which of its episodes.
        alpha: The probability of a false alarm.
        played: How many episodes to play for a reference in place of the version's reference.json; None for that file.
        stage: Called when a part of the work begins, with the number of calls of `advance` that follow.
        advance: Called for each step of it.

    Raises:
        ReferenceMissing, ReferenceUnavailable, ReferenceChanged, ReferenceUnreadable: As `fetch_reference`.
        EnvironmentNotFound, EnvironmentMisbehaved: As `play_reference`.
        ObservationsNotRecorded, ReferenceDiffers, EpisodesTooFew: As `read_live`.
        ServingError: If the version cannot be resolved, fetched or verified.
    """
    version = resolve(f"models:/{whole.model}/{selection.version}")
    if played is None:
        reference = fetch_reference(version)
    else:
        stage(f"play {played:,} episodes", 1)
        reference = play_reference(fetch(version), played)
        advance()
    dimensions = Dimensions(fetch(version).observation_space)
    stage("read episodes", len(whole.parts))
    live = read_live(whole, reference, dimensions, selection, alpha, advance)
    count = len(live.sketches) + reference.episodes
    if math.comb(count, reference.episodes) * alpha < _LEAST_DIVISIONS:
        raise EpisodesTooFew(selection.version, len(live.sketches), described(live.left_out), alpha)
    stage("compare dimensions", len(dimensions))
    comparison = compare(reference, live.sketches, alpha, advance=advance)
    return Drift(whole.model, selection.version, reference, live, comparison, whole.digest)

"""Reads the whole episodes that a training learns from, and refuses those that nothing can be learned from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow.compute as pc

from pipeline.environments.make import Environment
from pipeline.experience.exports.episodes import KEEP, Counts, Episode, Selection
from pipeline.experience.exports.errors import VersionNotExportable
from pipeline.experience.exports.export import left_out
from pipeline.experience.exports.spaces import PolicySpaces
from pipeline.experience.raw import choose_model, open_experience, s3_explained
from pipeline.experience.whole_episodes import UNREPORTED, WholeEpisodes
from pipeline.learning import checks
from pipeline.learning.errors import RewardsMissing, TooFewEpisodes
from pipeline.learning.settings import REFUSE, LearningSettings

#: Fewer episodes than this are refused: what a policy learns from them tells more about them than about the task.
LEAST_EPISODES = 10


@dataclass(frozen=True)
class Facts:
    """What is known of the episodes that a training learns from.

    Attributes:
        model: The model that acted in them.
        digest: The digest of the compaction.
        versions: The versions that acted in them, such as `3, 4`.
        episodes: How many there are.
        steps: The steps of all of them.
        return_mean: The mean of the sums of their rewards.
    """

    model: str
    digest: str
    versions: str
    episodes: int
    steps: int
    return_mean: float

    def __str__(self) -> str:
        plural = "s" if "," in self.versions else ""
        return f"{self.episodes:,} recorded episodes ({self.steps:,} steps) of version{plural} {self.versions}"


@dataclass(frozen=True)
class Recorded:
    """Episodes to learn from, all of which have an observation after each action."""

    whole: WholeEpisodes
    episodes: tuple[Episode, ...] = field(repr=False)
    facts: Facts

    @classmethod
    def read(
        cls, settings: LearningSettings, environment: Environment, note: Callable[[str], object] = lambda _: None
    ) -> Self:
        """Read all episodes, ordered by their ids, and check them.

        Args:
            settings: Which episodes.
            environment: The environment that they were recorded in.
            note: Receives what the episodes are, and which are left out.

        Raises:
            NoExperience, ModelNotRecorded, SeveralModels, NotCompacted, VersionNotRecorded, EpisodesReplaced,
            ExperienceDamaged, StoreUnavailable, S3Unusable: If they cannot be read.
            VersionNotExportable: If a version has other arrays than the others.
            ObservationsNotRecorded, OtherSpaces, ValueInvalid, RewardsMissing, RewardsUnreported, TooFewEpisodes:
                If they cannot be learned from.
        """
        whole = _opened(settings)
        checks.check_arrays(whole, environment)
        selection = _selection(whole, settings, environment)
        counts, unfinished = Counts(), _unfinished(whole) if settings.uses_rewards else set()
        found = tuple(_checked(selection.episodes(counts, followed=True), unfinished, environment, settings))
        reasons = left_out(counts)
        if dropped := counts.episodes - len(found):
            reasons.append(f"{dropped} whose end nobody reported")
        if len(found) < LEAST_EPISODES:
            left = f"; left out: {', '.join(reasons)}" if reasons else ""
            raise TooFewEpisodes(whole.model, len(found), LEAST_EPISODES, left)
        recorded = cls(whole, found, _facts(whole, found, counts))
        _report(recorded.facts, reasons, note)
        share = checks.share_at_bounds(found, environment.action_space)
        if share:
            note(f"{share:.1%} of the actions lie at a bound, where they may have been clipped: the bound is learned")
        return recorded


def _opened(settings: LearningSettings) -> WholeEpisodes:
    with s3_explained(settings.experience):
        store = open_experience(settings.experience)
        model = choose_model(store, None if settings.experience_model == "auto" else settings.experience_model)
        return WholeEpisodes.open(store, model, min(settings.versions or {0}) or None)


def _selection(whole: WholeEpisodes, settings: LearningSettings, environment: Environment) -> Selection:
    known = whole.layout.versions
    for version in sorted((settings.versions or frozenset()) - {*known}):
        raise VersionNotExportable(whole.model, version, ", ".join(map(str, known)))
    spaces = PolicySpaces(environment.observation_space, environment.action_space, environment.id, environment.kwargs)
    if not settings.uses_rewards:
        return Selection(whole, spaces, settings.versions, KEEP)
    summary = whole.summary()
    if not (pc.sum(summary["rewards_reported"]).as_py() or 0):
        raise RewardsMissing(whole.model, summary.num_rows)
    return Selection(whole, spaces, settings.versions, None if settings.unreported == REFUSE else settings.unreported)


def _unfinished(whole: WholeEpisodes) -> set[str]:
    """Return the ids of the episodes whose end nobody reported: nobody knows what followed their last step."""
    summary = whole.summary()
    return set(summary.filter(pc.equal(summary["done"], UNREPORTED))["eps_id"].to_pylist())


def _checked(
    episodes: Iterator[Episode], left_out: set[str], environment: Environment, settings: LearningSettings
) -> Iterator[Episode]:
    for episode in episodes:
        if episode.id not in left_out:
            checks.check_values(episode, environment, with_rewards=settings.uses_rewards)
            yield episode


def _facts(whole: WholeEpisodes, episodes: tuple[Episode, ...], counts: Counts) -> Facts:
    returns = [float(each.rewards.sum()) for each in episodes]
    versions = ", ".join(map(str, sorted(counts.versions)))
    steps = sum(map(len, episodes))
    return Facts(whole.model, whole.digest, versions, len(episodes), steps, float(np.mean(returns)))


def _report(facts: Facts, reasons: list[str], note: Callable[[str], object]) -> None:
    omitted = f"; left out: {', '.join(reasons)}" if reasons else ""
    note(f"{facts} of '{facts.model}', mean return {facts.return_mean:.1f}{omitted}")

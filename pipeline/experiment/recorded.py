"""The champion's returns, as recorded experience has them."""

from dataclasses import dataclass

from pipeline.experience.errors import S3Unusable
from pipeline.experience.raw import choose_model, open_experience
from pipeline.experience.stats import VersionStats, stats
from pipeline.experiment.errors import ChampionNotRecorded
from pipeline.experiment.plan import Baseline
from serving.experience.errors import StoreUnavailable

_NS_PER_DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Recorded:
    """The returns of a version in recorded experience.

    Attributes:
        model: The registered model.
        version: The version that decided last, other than the challenger: the champion.
        episodes: Its whole episodes.
        baseline: Their returns, and the rate of all versions' episodes together.
    """

    model: str
    version: int
    episodes: int
    baseline: Baseline


def recorded_champion(uri: str, model: str | None, challenger: int) -> Recorded:
    """Return the returns of the version that decided last, the challenger apart, from the whole episodes at a URI.

    Raises:
        ChampionNotRecorded: There are no whole episodes of another version.
        NoExperience, ModelNotRecorded, SeveralModels: There is nothing recorded, or it is not clear of which model.
        StoreUnavailable, S3Unusable, ExperienceDamaged, EpisodesReplaced: The experience cannot be read.
    """
    try:
        store = open_experience(uri)
        chosen = choose_model(store, model)
        found = stats(store, chosen).versions
    except StoreUnavailable as error:
        if not uri.startswith("s3://"):
            raise
        raise S3Unusable(uri, error.reason) from error
    versions = [each for each in found if each.episodes]
    others = [each for each in versions if each.version != challenger]
    if not others:
        raise ChampionNotRecorded(uri, chosen, challenger)
    champion = max(others, key=lambda each: (each.last_ns or 0, each.version))
    baseline = Baseline(champion.return_mean or 0.0, champion.return_std or 0.0, _episodes_per_day(versions))
    return Recorded(chosen, champion.version, champion.episodes, baseline)


def _episodes_per_day(versions: list[VersionStats]) -> float | None:
    """Return the mean rate from the first recorded decision to the last one, None if there is no time between them."""
    first = min(each.first_ns or 0 for each in versions)
    last = max(each.last_ns or 0 for each in versions)
    return sum(each.episodes for each in versions) * _NS_PER_DAY / (last - first) if last > first else None

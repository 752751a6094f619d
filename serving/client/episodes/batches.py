"""Batches of observations of several episodes: one request for each model version that the episodes are pinned to."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from serving.client.episodes.episode import BaseEpisode, request_headers
from serving.client.errors import EpisodeInvalid

Json = Any


class Group(NamedTuple):
    """The part of a batch that one version answers."""

    places: Sequence[int]
    """The indexes of its observations in the whole batch."""
    observations: Any
    episodes: Sequence[Hashable]

    @property
    def played(self) -> list[BaseEpisode]:
        """The episodes that are more than a name."""
        return [episode for episode in self.episodes if isinstance(episode, BaseEpisode)]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its request; none, if the episodes are only named. Raises EpisodeInvalid and EpisodeEnded."""
        played = self.played
        if len(set(played)) < len(played):
            raise EpisodeInvalid("it is in the batch twice, expected one observation of each episode")
        for episode in played:
            episode.check_running()
        return request_headers(played[0].version) if played else {}

    @property
    def keys(self) -> dict[str, Json]:
        """The keys of the body that name the episode and the step of each observation, null where there are none."""
        played = [episode if isinstance(episode, BaseEpisode) else None for episode in self.episodes]
        rewards = [None if episode is None else episode.last_reward for episode in played]
        keys = {
            "episodes": [None if episode is None else episode.id for episode in played],
            "steps": [None if episode is None else episode.step for episode in played],
        }
        return keys if all(reward is None for reward in rewards) else {**keys, "rewards": rewards}


def by_version(observations: Any, episodes: Sequence[Hashable]) -> list[Group]:
    """Return the parts of a batch by the version of their episodes' last answers."""
    places: dict[int | None, list[int]] = {}
    for place, episode in enumerate(episodes):
        version = episode.version if isinstance(episode, BaseEpisode) else None
        places.setdefault(version, []).append(place)
    if len(places) <= 1:
        return [Group(range(len(episodes)), observations, episodes)]
    return [Group(each, [observations[i] for i in each], [episodes[i] for i in each]) for each in places.values()]


def in_order(groups: Iterable[Group], actions: Iterable[Sequence[Any]]) -> list[Any]:
    """Return the actions of all groups, each at the place of its observation."""
    placed = {
        place: action
        for group, each in zip(groups, actions, strict=True)
        for place, action in zip(group.places, each, strict=True)
    }
    return [placed[place] for place in range(len(placed))]

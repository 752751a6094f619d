"""The assignment of episodes to the arms of an experiment."""

import numpy as np
import pytest

from serving.experience.episodes import NO_EPISODE, EpisodeHasher
from serving.experiments.assignment import CHALLENGER, CHAMPION, arm_of

NAMES = [EpisodeHasher()(f"episode-{number}") for number in range(4000)]


def challengers(salt, share, names=NAMES):
    return np.array([arm_of(salt, name, share) == CHALLENGER for name in names])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_challenger_gets_its_share_of_the_episodes(share):
    count = challengers("salt", share).sum()
    assert abs(count - share * len(NAMES)) < 4 * (len(NAMES) * share * (1 - share)) ** 0.5


def test_an_episode_stays_with_the_challenger_while_the_share_rises():
    before = challengers("salt", 0.0)
    for share in (0.01, 0.1, 0.5, 0.9, 1.0):
        now = challengers("salt", share)
        assert not (before & ~now).any()
        before = now


def test_a_share_of_0_assigns_none_and_a_share_of_1_all():
    assert not challengers("salt", 0.0).any()
    assert challengers("salt", 1.0).all()


def test_experiments_with_other_salts_assign_independently():
    both = (challengers("first", 0.5) & challengers("second", 0.5)).sum()
    assert abs(both - len(NAMES) / 4) < 4 * (len(NAMES) * 3 / 16) ** 0.5


@pytest.mark.parametrize("none", [NO_EPISODE, b"", ""])
def test_a_request_without_an_episode_is_in_no_arm(none):
    assert arm_of("salt", none, 1.0) is None


def test_the_assignment_of_a_name_never_changes():
    """Replicas of two releases act in one experiment, so these values are part of the interface."""
    arms = [arm_of("2f9a", name, 0.5) for name in ("a", "b", "c", "d", "user-17/episode-3")]
    assert arms == [CHAMPION, CHAMPION, CHALLENGER, CHALLENGER, CHAMPION]
    hashed = [14098199070846962747, 5289513246818983019]
    for name, value in zip("ac", hashed, strict=True):
        assert arm_of("2f9a", name, (value + 4096) / 2**64) == CHALLENGER
        assert arm_of("2f9a", name.encode(), (value - 4096) / 2**64) == CHAMPION

from typing import Any

import pytest

from serving.experience import online
from serving.experience.online import OnlineReturns


def event(episode: str = "e", **content: Any) -> dict[str, Any]:
    """The content of a FEEDBACK record."""
    absent = dict.fromkeys(("return", "length", "done", "version"))
    return {"time_ns": 1, "episode": episode, "rewards": [], "final_observation": None, **absent, **content}


def counted(*events: dict[str, Any]) -> dict[str, Any]:
    returns = OnlineReturns(lambda: 3)
    for each in events:
        returns.add(each)
    return returns.describe()


def test_the_means_are_those_of_the_finished_episodes_of_each_version() -> None:
    ends = [
        event("a", **{"return": 10.0}, length=10, done="terminated", version=3),
        event("b", **{"return": 20.0}, length=30, done="truncated", version=3),
        event("c", **{"return": -1.0}, length=7, done="terminated", version=12),
    ]
    assert counted(*ends) == {
        "3": {"episodes": 2, "return_mean": 15.0, "length_mean": 20.0, "length_count": 2},
        "12": {"episodes": 1, "return_mean": -1.0, "length_mean": 7.0, "length_count": 1},
    }


def test_an_event_without_a_version_counts_for_the_one_that_is_served_at_that_time() -> None:
    served = [3]
    returns = OnlineReturns(lambda: served[0])
    returns.add(event("a", **{"return": 1.0}, done="terminated"))
    served[0] = 4
    returns.add(event("b", **{"return": 2.0}, done="terminated"))
    assert {version: each["return_mean"] for version, each in returns.describe().items()} == {"3": 1.0, "4": 2.0}


@pytest.mark.parametrize(
    "content",
    [{"rewards": [[0, 1.0]]}, {"return": 1.0}, {"done": "terminated"}, {"return": float("nan"), "done": "terminated"}],
    ids=str,
)
def test_an_event_that_is_no_end_with_a_return_does_not_count(content: dict[str, Any]) -> None:
    assert counted(event(**content)) == {}


def test_an_event_that_does_not_count_does_not_hide_the_end_of_its_episode() -> None:
    end = event("a", **{"return": 1.0}, done="terminated")
    assert counted(event("a", rewards=[[0, 1.0]]), event("a", done="terminated"), end)["3"]["episodes"] == 1


def test_an_episode_counts_once_however_often_its_end_is_reported() -> None:
    first = event("a", **{"return": 1.0}, length=5, done="terminated")
    assert counted(first, first, {**first, "return": 9.0})["3"]["return_mean"] == 1.0
    assert counted(first, first)["3"]["episodes"] == 1


def test_episodes_without_a_length_are_not_in_its_mean() -> None:
    with_length = event("a", **{"return": 1.0}, length=8, done="terminated")
    without = event("b", **{"return": 1.0}, done="terminated")
    assert counted(with_length, without)["3"] == {
        "episodes": 2,
        "return_mean": 1.0,
        "length_mean": 8.0,
        "length_count": 1,
    }
    assert counted(without)["3"]["length_mean"] is None


def test_the_memory_of_episodes_and_versions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "RECENT_EPISODES", 2)
    monkeypatch.setattr(online, "MAX_VERSIONS", 2)
    ends = [event(name, **{"return": 1.0}, done="terminated", version=7) for name in "abc"]
    # a is reported again and stays, so c takes the place of b.
    assert counted(*ends[:2], ends[0], ends[2], ends[0], ends[1])["7"]["episodes"] == 4
    others = [event(f"of {version}", **{"return": 1.0}, done="terminated", version=version) for version in (1, 2, 3)]
    assert list(counted(*others)) == ["2", "3"]

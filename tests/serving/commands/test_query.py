from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.client.errors import ServerUnreachable
from serving.commands.query import _shortened, query
from serving.http.app import PolicyApp
from serving.policy.errors import EnvironmentUnknown
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, served


@pytest.fixture
def url(app: PolicyApp, serve_http: Callable[[Any], str]) -> str:
    app.max_body_bytes = 1 << 20
    return serve_http(app)


def play(url: str, **options: Any) -> Any:
    defaults = {"episodes": 2, "env_id": None, "seed": 0, "quiet": False, "together": None}
    return query(url, **{**defaults, **options})


def test_episodes_are_shown_step_by_step_with_their_mean(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = play(url)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == f"cartpole-ppo version 3 plays CartPole-v1 through {url}"
    assert "\n  step    1   observation [ 0.014 -0.023 -0.046 -0.048]   action " in shown
    assert f"episode with seed 1: return {episodes[1].episode_return:g} in {episodes[1].steps} steps" in shown
    assert shown.splitlines()[-1].startswith("2 episodes: mean return ")


def test_quiet_shows_no_steps(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    play(url, quiet=True)
    assert "observation" not in capsys.readouterr().out


def test_lockstep_plays_the_same_episodes(url: str) -> None:
    one_by_one = play(url, episodes=5, together=False, quiet=True)
    together = play(url, episodes=5, together=True)
    assert sorted(together, key=lambda episode: episode.seed) == one_by_one


def test_many_episodes_are_played_in_lockstep(url: str) -> None:
    assert len(play(url, episodes=100)) == 100


@pytest.mark.parametrize("together", [False, True])
def test_the_state_of_a_recurrent_policy_lasts_an_episode(serve_http: Callable[[Any], str], together: bool) -> None:  # noqa: FBT001
    url = serve_http(PolicyApp(served(COUNTING_BUNDLE)))
    episodes = play(url, episodes=10, together=together)
    assert {episode.episode_return for episode in episodes} == {4.0}


@pytest.mark.parametrize("together", [False, True])
def test_sampled_episodes_are_repeated_by_their_seed(serve_http: Callable[[Any], str], together: bool) -> None:  # noqa: FBT001
    url = serve_http(PolicyApp(served(EXPLORING_BUNDLE)))
    first, again, other, greedy = (
        play(url, episodes=3, together=together, quiet=True, seed=seed, explore=explore)
        for seed, explore in ((7, True), (7, True), (8, True), (7, False))
    )
    assert first == again
    assert first != other
    assert first != greedy


def test_nested_observations_are_shown_part_by_part() -> None:
    observation = {"arm": np.array([0.5, 1.23456]), "goal": (3, np.zeros(2))}
    assert _shortened(observation) == "{arm: [0.500 1.235], goal: (3, [0.000 0.000])}"


def test_an_unknown_environment_is_named(url: str) -> None:
    with pytest.raises(EnvironmentUnknown, match="cannot make the environment 'Nope-v0'"):
        play(url, env_id="Nope-v0")


def test_no_server_is_one_line() -> None:
    with pytest.raises(ServerUnreachable):
        play("http://127.0.0.1:1/cartpole-ppo")

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from serving.client.errors import ServerUnreachable
from serving.commands import episodes as playing
from serving.commands.episodes import TimedClient, play_in_lockstep
from serving.commands.query import _shortened, query
from serving.http.policy_app import PolicyApp
from serving.policy import environments
from serving.policy.bundle import Bundle
from serving.policy.errors import EnvironmentNotMade, EnvironmentUnknown
from tests.serving.asking import served
from tests.serving.client.recording import RecordingServer
from tests.serving.commands.test_status import Proxy
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, STEERING_BUNDLE
from tests.workshop import PROJECT


@pytest.fixture
def url(app: PolicyApp, serve_http: Callable[[Any], str]) -> str:
    app.max_body_bytes = 1 << 20
    return serve_http(app)


def play(url: str, **options: Any) -> Any:
    defaults = {"episodes": 2, "env_id": None, "seed": 0, "quiet": False, "together": None}
    return query(url, **{**defaults, **options})


def test_steps_and_returns_are_printed_and_then_the_mean(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = play(url)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == f"cartpole-ppo version 3 plays CartPole-v1 through {url}"
    assert "\n  step    1   observation [ 0.014 -0.023 -0.046 -0.048]   action " in shown
    assert f"episode with seed 1: return {episodes[1].episode_return:g} in {episodes[1].steps} steps" in shown
    assert shown.splitlines()[-1].startswith("2 episodes: mean return ")


SUMMARY = re.compile(
    r"(\d+) requests in [\d.]+ s \(\d+/s\), latency p50 [\d.]+ ms, p99 [\d.]+ ms, answered by version (.*)\n"
    r"(\d+) episodes: mean return [\d.]+, std [\d.]+, min ([\d.]+), max ([\d.]+)\n"
)


def test_quiet_prints_only_the_summary(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = play(url, quiet=True)
    _, _, summary = capsys.readouterr().out.partition("\n")
    found = SUMMARY.fullmatch(summary)
    assert found, summary
    returns = [episode.episode_return for episode in episodes]
    steps = sum(episode.steps for episode in episodes)
    assert found.groups() == (str(steps), "3", "2", f"{min(returns):g}", f"{max(returns):g}")


@pytest.mark.parametrize("together", [False, True])
def test_episodes_are_reported_to_a_server_that_records_them(
    counting: PolicyApp, serve_http: Callable[[Any], str], capsys: pytest.CaptureFixture[str], *, together: bool
) -> None:
    server = RecordingServer(counting)
    episodes = play(serve_http(server), episodes=3, together=together, quiet=True, allow_import=True)
    assert "\n3 episodes recorded as experience\n3 episodes: mean return 4.00" in capsys.readouterr().out
    assert [(event["return"], event["length"], event["version"]) for event in server.events] == [(4.0, 4, 3)] * 3
    assert {event["done"] for event in server.events} == {"terminated"}
    assert len({event["episode"] for event in server.events}) == 3
    assert [episode.recorded for episode in episodes] == [True] * 3


def test_in_lockstep_a_promotion_changes_the_version_of_no_running_episode(
    counting: PolicyApp, serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "MOST_IN_LOCKSTEP", 2)
    server = RecordingServer(counting)
    with TimedClient(serve_http(server)) as client:
        make = partial(environments.make, "tests.serving.counting:Counting-v0", {})
        episodes = play_in_lockstep(client, make, range(4))
        next(episodes)
        counting.served = served(COUNTING_BUNDLE, version=4)
        assert len(list(episodes)) == 3
    assert [event["version"] for event in server.events] == [3, 3, 4, 4]
    assert client.versions == {3, 4}


@pytest.fixture
def counting() -> PolicyApp:
    """An application whose policy plays episodes of four steps."""
    return PolicyApp(served(COUNTING_BUNDLE))


@pytest.mark.parametrize("together", [False, True])
def test_an_episode_that_does_not_end_is_cut(
    serve_http: Callable[[Any], str], capsys: pytest.CaptureFixture[str], *, together: bool
) -> None:
    description = json.loads(COUNTING_BUNDLE.policy)
    description["environment"]["kwargs"] = {"steps": 1_000_000}
    endless = Bundle(COUNTING_BUNDLE.graph, json.dumps({**description, "max_episode_steps": 3}).encode())
    episodes = play(serve_http(PolicyApp(served(endless))), together=together, allow_import=True)
    assert [(each.steps, each.cut) for each in episodes] == [(3, True)] * 2
    assert "2 of 2 episodes did not end and were cut after 3 steps" in capsys.readouterr().out


def test_the_summary_names_every_version_that_answered(
    counting: PolicyApp, serve_http: Callable[[Any], str], capsys: pytest.CaptureFixture[str]
) -> None:
    play(serve_http(Proxy(counting, PolicyApp(served(COUNTING_BUNDLE, version=4)))), quiet=True, allow_import=True)
    assert "answered by version 3 and 4\n" in capsys.readouterr().out


def test_quiet_shows_a_progress_bar_on_a_terminal(counting: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "serving", "query", "--url", serve_http(counting), "--quiet"]
    command += ["--episodes", "2", "--allow-import"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = ""
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error.
            while part := os.read(ours, 65536):
                shown += part.decode()
    os.close(ours)
    assert process.returncode == 0
    assert "2/2 episodes 8 requests" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)


def test_lockstep_plays_the_same_episodes_as_one_by_one(url: str) -> None:
    one_by_one = play(url, episodes=2, together=False, quiet=True)
    together = play(url, episodes=2, together=True)
    assert sorted(together, key=lambda episode: episode.seed) == one_by_one


def test_lockstep_plays_in_as_many_environments_as_can_be_made(url: str) -> None:
    made: list[Any] = []

    def make() -> Any:
        if len(made) == 2:
            raise EnvironmentNotMade("CartPole-v1", "there are two")
        made.append(environments.make("CartPole-v1", {}))
        return made[-1]

    with TimedClient(url) as client:
        together = list(play_in_lockstep(client, make, range(3)))
        assert sorted(together, key=lambda episode: episode.seed) == play(url, episodes=3, together=False, quiet=True)
        with pytest.raises(EnvironmentNotMade):
            list(play_in_lockstep(client, make, range(3)))


def test_many_episodes_are_played_in_lockstep_by_default(app: PolicyApp, url: str) -> None:
    episodes = play(url, episodes=100)
    assert app.counts.answered == max(episode.steps for episode in episodes)


@pytest.mark.parametrize("together", [False, True])
def test_the_state_of_a_recurrent_policy_lasts_one_episode(
    counting: PolicyApp,
    serve_http: Callable[[Any], str],
    together: bool,  # noqa: FBT001
) -> None:
    episodes = play(serve_http(counting), episodes=10, together=together, allow_import=True)
    assert {episode.episode_return for episode in episodes} == {4.0}


@pytest.mark.parametrize("together", [False, True])
def test_sampled_episodes_are_reproducible_by_their_seed(serve_http: Callable[[Any], str], together: bool) -> None:  # noqa: FBT001
    url = serve_http(PolicyApp(served(EXPLORING_BUNDLE)))
    first, again, other, greedy = (
        play(url, episodes=3, together=together, quiet=True, seed=seed, explore=explore)
        for seed, explore in ((7, True), (7, True), (8, True), (7, False))
    )
    assert first == again
    assert first != other
    assert first != greedy


@pytest.mark.parametrize("together", [False, True])
def test_an_environment_receives_arrays_in_the_dtype_of_its_space(
    serve_http: Callable[[Any], str],
    together: bool,  # noqa: FBT001
) -> None:
    url = serve_http(PolicyApp(served(STEERING_BUNDLE)))
    episodes = play(url, env_id="tests.zoo.failing:ArrayActions-v0", together=together)
    assert [episode.episode_return for episode in episodes] == [20.0, 20.0], "the policy steers towards the rewards"


def test_nested_observations_are_printed_part_by_part() -> None:
    observation = {"arm": np.array([0.5, 1.23456]), "goal": (3, np.zeros(2))}
    assert _shortened(observation) == "{arm: [0.500 1.235], goal: (3, [0.000 0.000])}"


def test_an_unknown_environment_raises_an_error_with_its_name(url: str) -> None:
    with pytest.raises(EnvironmentUnknown, match="cannot make the environment 'Nope-v0'"):
        play(url, env_id="Nope-v0")


def test_an_unreachable_server_raises_an_error() -> None:
    with pytest.raises(ServerUnreachable):
        play("http://127.0.0.1:1/cartpole-ppo")

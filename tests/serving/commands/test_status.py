import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from serving.arguments import Arguments, Autoscaling
from serving.cli import main
from serving.commands import status
from serving.experience.online import OnlineReturns
from serving.http.policy_app import PolicyApp
from serving.replica.identity import ReplicaIdentity
from serving.replica.refresh_state import Refresh, RejectedVersion
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import served
from tests.serving.experiment import challenge, champion, experiment
from tests.workshop import PROJECT


class Proxy:
    """Distributes requests over several replicas in turn."""

    def __init__(self, *apps: PolicyApp) -> None:
        self.apps, self.turn = apps, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.turn += 1
        await self.apps[self.turn % len(self.apps)](scope, receive, send)


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "INTERVAL_S", 0.01)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def url(serve_http: Callable[[Any], str]) -> str:
    """A deployment of two replicas; one rejected a version, the other has promoted one."""
    rejected = RejectedVersion(5, "graph_refused", "it is bad")
    refresh = Refresh("2026-11-22T20:00:00+00:00", "version 5: it is bad", rejected)
    one = PolicyApp(served(version=3), replica=ReplicaIdentity("aaa", lambda: 2), refresh=refresh)
    two = PolicyApp(
        served(version=4),
        replica=ReplicaIdentity("bbb", lambda: 2),
        refresh=Refresh("2026-11-22T20:00:01+00:00", swaps=1),
    )
    two.counts.answered = 7
    return serve_http(Proxy(one, two))


def shown(url: str) -> list[str]:
    result = CliRunner().invoke(main, ["status", "--url", url])
    assert result.exit_code == 0, result.output
    return [line.rstrip() for line in result.output.splitlines()]


def test_a_wide_console_shows_every_column_of_every_replica(url: str) -> None:
    first, second, *table, note = shown(url)
    assert first == "cartpole-ppo version 3 and 4 (models:/cartpole-ppo/Production)"
    assert second == f"2 of 2 replicas answer at {url}"
    assert [re.split("  +", line) for line in table] == [
        ["replica", "version", "stage", "status", "refreshed", "requests/s", "answered", "errors", "swaps"],
        ["aaa", "3", "Production", "rejected 5", "2026-11-22T20:00:00+00:00", "0", "0", "0", "0"],
        ["bbb", "4", "Production", "ok", "2026-11-22T20:00:01+00:00", "0", "7", "0", "1"],
    ]
    assert note == "version 5: it is bad"


@pytest.mark.parametrize("stage", ["None", "", None])  # as registries say that there is none
def test_a_version_without_a_stage_shows_a_dash(stage: Any, serve_http: Callable[[Any], str]) -> None:
    policy = served()
    unstaged = ServedPolicy(policy.policy, replace(policy.version, stage=stage))
    header, row = shown(serve_http(PolicyApp(unstaged)))[2:4]
    assert row[header.index("stage") :].startswith("- ")


def test_eighty_columns_show_the_most_important_columns_in_full(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, _, *table, _ = shown(url)
    assert [re.split("  +", line) for line in table] == [
        ["replica", "version", "status", "refreshed", "requests/s", "answered", "errors"],
        ["aaa", "3", "rejected 5", "20:00:00Z", "0", "0", "0"],
        ["bbb", "4", "ok", "20:00:01Z", "0", "7", "0"],
    ]


def test_a_replica_that_does_not_answer_is_missing_and_degradation_is_shown(serve_http: Callable[[Any], str]) -> None:
    app = PolicyApp(
        served(), replica=ReplicaIdentity("aaa", lambda: 2), refresh=Refresh(error="it is down", degraded=True)
    )
    shown = CliRunner().invoke(main, ["status", "--url", serve_http(app)]).output
    assert "1 of 2 replicas answer" in shown
    assert "Serving the last known good version: it is down" in shown


def test_a_replica_to_which_the_registry_has_not_answered_for_long_is_stale(serve_http: Callable[[Any], str]) -> None:
    silent = Refresh("2026-11-22T20:00:00+00:00", stale_at=0.0)
    app = PolicyApp(served(), replica=ReplicaIdentity("aaa"), refresh=silent)
    _, _, _, row, note = shown(url := serve_http(app))
    assert re.split("  +", row)[3] == "stale"
    assert note == "Replica aaa has received no answer from the registry since 2026-11-22T20:00:00+00:00."
    app.refresh = replace(silent, error="it is down")
    assert shown(url)[-1] == "it is down"


def test_a_stage_without_a_version_is_shown_beside_the_time_of_the_last_poll(serve_http: Callable[[Any], str]) -> None:
    emptied = Refresh("2026-11-22T20:00:00+00:00", "No version is in the stage.")
    _, _, _, row, note = shown(serve_http(PolicyApp(served(), refresh=emptied)))
    assert re.split("  +", row)[3:5] == ["not confirmed", "2026-11-22T20:00:00+00:00"]
    assert note == "No version is in the stage."


def test_of_the_replicas_that_autoscaling_allows_all_that_run_are_shown(serve_http: Callable[[Any], str]) -> None:
    arguments = Arguments(autoscaling=Autoscaling(max_replicas=4))
    running = [
        PolicyApp(served(), replica=ReplicaIdentity(each, lambda: arguments.largest_num_replicas)) for each in "abc"
    ]
    _, count, _, *rows = shown(serve_http(Proxy(*running)))
    assert count.startswith("3 of 4 replicas answer")
    assert [row[0] for row in rows] == ["a", "b", "c"]


def test_replicas_of_different_releases_of_the_code_are_noted(serve_http: Callable[[Any], str]) -> None:
    """A node on which the new release was not installed runs the old one."""
    running = [PolicyApp(served(), replica=ReplicaIdentity(each, lambda: 2, f"0.2.0+{each}")) for each in "ab"]
    assert shown(serve_http(Proxy(*running)))[-1] == "replicas run different releases of the code: 0.2.0+a, 0.2.0+b"


def finished(*ends: tuple[int, float, int | None]) -> OnlineReturns:
    """The episodes of a replica that ended, by version, return and length."""
    online = OnlineReturns(lambda: 3)
    for number, (version, value, length) in enumerate(ends):
        online.add(
            {"episode": str(number), "version": version, "return": value, "length": length, "done": "terminated"}
        )
    return online


def test_the_finished_episodes_of_each_version_are_shown_over_all_replicas(serve_http: Callable[[Any], str]) -> None:
    episodes = finished((3, 10.0, 10), (3, 20.0, None), (12, 7.0, None)), finished((3, 60.0, 40)), finished()
    replicas = [PolicyApp(served(), replica=ReplicaIdentity(str(number), lambda: 3)) for number in range(3)]
    for app, online in zip(replicas, episodes, strict=True):
        app.online = online
    *_, header, third, twelfth = shown(serve_http(Proxy(*replicas)))
    assert re.split("  +", header) == ["version", "online episodes", "mean return", "mean length"]
    assert re.split("  +", third) == ["3", "3", "30.0", "25.0"]
    assert re.split("  +", twelfth) == ["12", "1", "7.0", "-"]


def test_a_server_that_records_experience_has_no_table_before_the_first_episode_ends(
    serve_http: Callable[[Any], str],
) -> None:
    app = PolicyApp(served())
    app.online = finished()
    assert len(shown(serve_http(app))) == 4


def test_a_provider_other_than_the_cpu_is_shown(serve_http: Callable[[Any], str]) -> None:
    policy = served()
    policy.policy.provider = "cuda"
    url = serve_http(PolicyApp(policy))
    assert shown(url)[1] == f"1 of 1 replicas answer at {url}, computing on cuda"


def test_the_rate_is_measured_between_two_samples() -> None:
    def sample(answered: int, at: float) -> status.Sample:
        return status.Sample({"a": {"replica": {"answered": answered, "of": 1}}}, at)

    assert sample(300, 12.0).rate("a", sample(100, 10.0)) == 100
    assert sample(300, 12.0).rate("b", sample(100, 10.0)) is None


def test_watch_updates_the_table_until_ctrl_c(serve_http: Callable[[Any], str]) -> None:
    app = PolicyApp(
        served(version=3), replica=ReplicaIdentity("aaa", lambda: 1), refresh=Refresh("2026-11-22T20:00:00+00:00")
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "serving", "status", "--watch", "--url", serve_http(app)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=theirs, stderr=theirs)
    shown = ""
    try:
        for text, then in (("version 3", served(version=4)), ("version 4", None)):
            while text not in shown:
                shown += os.read(ours, 65536).decode(errors="replace")
            app.served = then or app.served
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    assert "Traceback" not in shown


def test_an_unreachable_server_is_an_error_of_one_line() -> None:
    shown = CliRunner().invoke(main, ["status", "--url", "http://127.0.0.1:1/x"])
    assert (shown.exit_code, len(shown.stderr.splitlines())) == (1, 1)


def test_model_describes_the_replica_and_its_counters() -> None:
    from tests.serving.asking import ask

    app = PolicyApp(served(), replica=ReplicaIdentity("aaa", lambda: 2, "0.2.0+abc", pid=7, started_at="now"))
    ask(app, body=b'{"observation": [0, 0, 1, 0]}')
    ask(app, body=b"nonsense")
    replica = json.loads(ask(app, "GET", "/model").body)["replica"]
    assert replica == {
        "id": "aaa",
        "of": 2,
        "pid": 7,
        "started_at": "now",
        "release": "0.2.0+abc",
        "answered": 1,
        "errors": 1,
    }


def test_an_experiment_is_one_line_over_all_replicas(serve_http: Callable[[Any], str]) -> None:
    state = experiment(expires_s=4102444800.0)
    replicas = [PolicyApp(champion(state), replica=ReplicaIdentity(name, lambda: 2)) for name in ("aaa", "bbb")]
    url = serve_http(Proxy(*replicas))
    line = (
        "Experiment e1: version 4 beside 3, {}, until 2100-01-01T00:00:00+00:00. Requests: {} in the champion's arm, "
    )
    line += "{} in the challenger's, {} of them answered by the champion after a failure."
    replicas[0].challenge = challenge(state)
    assert line.format("0.5 of the episodes at 1 of 2 replicas", 0, 0, 0) in " ".join(shown(url))
    replicas[1].challenge = challenge(state)
    for app in replicas:
        assert app.experiment.arms is not None
        app.experiment.arms.counts.answered.update(champion=3, challenger=2)
        app.experiment.arms.counts.failed = 1
    assert line.format("0.5 of the episodes", 6, 4, 2) in " ".join(shown(url))
    for app in replicas:
        app.served = champion(experiment(expires_s=4102444800.0, decision="rolled back"))
    assert line.format("ended (rolled back)", 6, 4, 2) in " ".join(shown(url))
    for app in replicas:
        app.served = champion(experiment(expires_s=1.0))
    assert "version 4 beside 3, expired, until 1970-01-01T00:00:01+00:00. Requests: " in " ".join(shown(url))

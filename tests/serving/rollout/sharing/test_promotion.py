"""Several replicas on one node, as threads of this process with one cache directory."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.registry import registry
from serving.registry.access import DirectRegistry
from serving.registry.errors import RegistryFailed
from serving.rollout import candidate_admission, initial_policy
from serving.rollout.initial_policy import load_initial_policy
from serving.rollout.watcher import Watcher
from tests.serving.asking import ask
from tests.serving.policies import CONTRARY_BUNDLE, STEERING_BUNDLE
from tests.serving.store import Store
from tests.workshop import await_true

TILTED = b'{"observation": [0, 0, 1, 0]}'
INTERVAL_S = 0.5


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_policy, "open_registry", DirectRegistry)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls that all replicas should share."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            counted[name.removeprefix("_")] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, counting)

    for owner, name in (
        (registry, "resolve"),
        (registry, "poll"),
        (registry, "download"),
        (candidate_admission, "run_trial"),
    ):
        count(owner, name)
    return counted


class Replica:
    """The application and the watcher of one replica."""

    def __init__(self, store: Store, name: str, cache: Path) -> None:
        arguments = Arguments(
            model_uri=f"models:/{name}/Production",
            tracking_uri=store.uri,
            cache_dir=str(cache),
            refresh_interval_s=INTERVAL_S,
            candidate_timeout_s=60,
        )
        start = load_initial_policy(arguments, "a deployment", application=name)
        self.app = PolicyApp(start.served, refresh=start.refresh)
        self.watcher = Watcher(self.app, start.admission, start.polls)

    @property
    def version(self) -> int:
        return self.app.served.version.version

    def model(self) -> Any:
        return ask(self.app, "GET", "/model").json()


@contextmanager
def replicas(store: Store, name: str, cache: Path, number: int = 4) -> Iterator[list[Replica]]:
    """Start replicas beside each other, as Serve does."""
    started: list[Replica] = []
    threads = [threading.Thread(target=lambda: started.append(Replica(store, name, cache))) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == number
    for replica in started:
        replica.watcher.start()
    try:
        yield started
    finally:
        for replica in started:
            replica.watcher.stop()
        await_true(lambda: not any(thread.name == "watcher" for thread in threading.enumerate()), "the watchers stop")


def test_a_promotion_costs_one_download_and_one_trial_and_all_replicas_switch_without_a_failed_request(
    store: Store, tmp_path: Path, calls: Counter[str]
) -> None:
    store.register("together", stage="Production")
    answers: list[tuple[int, object]] = []
    with replicas(store, "together", tmp_path) as nodes:
        assert calls.pop("poll", 0) <= 1
        assert calls == {"resolve": 1, "download": 1, "run_trial": 1}
        calls.clear()
        done = threading.Event()

        def query(replica: Replica) -> None:
            while not done.wait(0.02):
                answer = ask(replica.app, body=TILTED)
                answers.append((answer.status, answer.json().get("action")))

        clients = [threading.Thread(target=query, args=(replica,)) for replica in nodes]
        for client in clients:
            client.start()
        store.promote("together", store.register("together", CONTRARY_BUNDLE))
        await_true(lambda: {replica.version for replica in nodes} == {2}, "all replicas serve version 2")
        done.set()
        for client in clients:
            client.join()
        assert (calls["download"], calls["run_trial"], calls["resolve"]) == (1, 1, 0)
        assert [replica.model()["swaps"] for replica in nodes] == [1] * len(nodes)
    assert {status for status, _ in answers} == {200}
    assert {action for _, action in answers} == {0, 1}


def test_all_replicas_show_what_the_one_that_polls_has_seen(
    store: Store, tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("seen", stage="Production")
    with replicas(store, "seen", tmp_path) as nodes:

        def shown(key: str) -> list[Any]:
            return [replica.model()[key] for replica in nodes]

        with monkeypatch.context() as outage:

            def fail(_: str) -> None:
                raise RegistryFailed("http://registry", "it is down")

            outage.setattr(registry, "poll", fail)
            reason = "the model registry at http://registry failed: it is down"
            await_true(lambda: shown("refresh_error") == [reason] * 4, "all replicas show the outage")
        await_true(lambda: shown("refresh_error") == [None] * 4, "all replicas show its end")
        assert None not in shown("last_refresh")
        assert shown("stale") == shown("degraded") == [False] * 4
        store.promote("seen", store.register("seen", STEERING_BUNDLE))
        await_true(lambda: shown("refusals") == [1] * 4, "all replicas reject version 2")
        assert {(refused["version"], refused["code"]) for refused in shown("refused")} == {(2, "spaces_differ")}
        store.promote("seen", 2, "Archived", archive=False)
        await_true(lambda: shown("refused") == [None] * 4, "version 2 is no longer shown as rejected")
        assert all(error.startswith("No version of 'seen' is in stage") for error in shown("refresh_error"))
        assert [replica.version for replica in nodes] == [1] * 4
        assert calls["resolve"] == 1


def test_the_others_go_on_when_the_one_that_polls_has_stopped(store: Store, tmp_path: Path) -> None:
    store.register("surviving", stage="Production")

    def polls(replica: Replica) -> bool:
        return replica.watcher._polls._lock._descriptor is not None

    with replicas(store, "surviving", tmp_path) as nodes:
        others = list(nodes)
        for _ in range(2):
            await_true(lambda: any(map(polls, others)), "one of them polls")
            elected = next(filter(polls, others))
            elected.watcher.stop()
            others.remove(elected)
            await_true(lambda stopped=elected: not polls(stopped), "it leaves the polls to the others")
            promoted = store.register("surviving", CONTRARY_BUNDLE)
            store.promote("surviving", promoted)
            await_true(lambda number=promoted: {each.version for each in others} == {number}, "the others switch")
            assert elected.version < promoted

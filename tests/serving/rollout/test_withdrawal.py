"""A version that failed in service on this replica, on another one, or before a restart."""

import json
import logging
from pathlib import Path

import pytest

from serving.arguments import Arguments
from serving.commands import run as server
from serving.registry import registry
from serving.registry.errors import RegistryFailed
from serving.registry.last_known_good import LastKnownGood
from serving.replica.served_policy import ServedPolicy
from serving.rollout.initial_policy import InitialPolicy, load_initial_policy
from serving.rollout.refusals import LIFTED, Refusals
from tests.serving.asking import ask
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, STEERING_BUNDLE
from tests.serving.rollout.test_watcher import Bench, promote
from tests.serving.store import Store
from tests.workshop import await_true

FATAL = json.dumps({"observation": FATAL_OBSERVATION}).encode()
BAD = FAILING["output_not_finite"]


@pytest.fixture
def bench(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """A replica whose version 1 was replaced by version 2, which fails at one observation."""
    name = request.node.originalname
    store.register(name, stage="Production")
    bench = Bench(store, name, tmp_path)
    bench.app._faults._refuse = bench.admission.refusals.add
    promote(store, bench, BAD)
    bench.poll()
    assert bench.app.served.version.version == 2
    return bench


def restarted(bench: Bench, store: Store) -> InitialPolicy:
    return load_initial_policy(bench.admission.arguments.model_copy(update={"tracking_uri": store.uri}))


def fail(bench: Bench) -> None:
    assert ask(bench.app, body=FATAL).headers["x-model-version"] == "1"
    await_true(lambda: bench.admission.refusals.all() != [], "the refusal is written")


def test_the_replica_says_that_it_has_taken_a_version_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    fail(bench)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            refresh = bench.poll()
            bench.watcher._look()
    reason = "the policy computed numbers that are not finite, in its output 'action_dist_inputs'"
    assert refresh.rejected is not None
    assert (refresh.rejected.version, refresh.rejected.code, refresh.rejected.reason) == (
        2,
        "output_not_finite",
        reason,
    )
    remedy = "another version, or a new value of its tag refusal.lifted, ends this"
    assert refresh.error == f"version 2 failed in service: {reason}; version 1 answers; {remedy}"
    assert (refresh.status, refresh.degraded, refresh.swaps) == ("refused", False, 2)
    assert refresh.rejections == {"output_not_finite": 1}
    assert caplog.text.count(refresh.error) == 1
    assert bench.answer() == (1, "1")
    assert ask(bench.app, method="GET", path="/health").json()["status"] == "refused"


def test_a_version_that_another_replica_refused_is_taken_back_without_a_poll(bench: Bench) -> None:
    bench.admission.refusals.add(bench.app.served.version, "crashed", "it crashed")
    bench.watcher._look()
    assert bench.answer() == (1, "1")
    assert bench.app.refresh.rejected is not None
    assert bench.app.refresh.rejected.code == "crashed"


def test_it_is_taken_back_where_the_version_before_is_not_loaded_yet(bench: Bench) -> None:
    bench.app.served.fallback = None
    bench.admission.refusals.add(bench.app.served.version, "crashed", "it crashed")
    bench.watcher._look()
    assert bench.answer() == (1, "1")


def test_the_watchers_thread_notices_a_refusal_between_two_polls(bench: Bench) -> None:
    arguments = bench.admission.arguments.model_copy(update={"refresh_interval_s": 3600.0})
    bench.watcher._arguments = arguments
    bench.watcher.start()
    try:
        bench.admission.refusals.add(bench.app.served.version, "crashed", "it crashed")
        await_true(lambda: bench.app.served.version.version == 1, "version 1 answers")
    finally:
        bench.watcher.stop()


def test_a_person_lifts_it_by_a_tag_and_a_newer_version_ends_it(store: Store, bench: Bench) -> None:
    from mlflow import MlflowClient

    fail(bench)
    for count, value in enumerate(("1", "2"), 2):
        assert bench.poll().status == "refused"
        MlflowClient(store.uri).set_model_version_tag(bench.name, "2", LIFTED, value)
        assert bench.poll().status == "ok"
        assert bench.app.served.version.version == 2
        fail(bench)
        await_true(lambda: len(bench.admission.refusals.all()) == count, "the version is refused again")  # noqa: B023
    assert bench.poll().status == "refused"
    promote(store, bench, CONTRARY_BUNDLE)
    assert (bench.poll().status, bench.answer()) == ("ok", (0, "3"))


def test_no_other_tag_and_no_repeated_promotion_lifts_it(store: Store, bench: Bench) -> None:
    from mlflow import MlflowClient

    fail(bench)
    bench.poll()
    for tag in ("online.return", "gate.stage.Production", "checked"):
        MlflowClient(store.uri).set_model_version_tag(bench.name, "2", tag, "1")
        assert bench.poll().status == "refused"
    for version in (1, 2):
        store.promote(bench.name, version)
        refresh = bench.poll()
    assert (refresh.status, bench.app.served.version.version) == ("refused", 1)
    assert restarted(bench, store).served.version.version == 1


def test_after_a_rollback_by_hand_there_is_nothing_to_say(store: Store, bench: Bench) -> None:
    fail(bench)
    bench.poll()
    store.promote(bench.name, 1)
    refresh = bench.poll()
    assert (refresh.status, refresh.rejected, refresh.error) == ("ok", None, None)


def test_a_restarted_replica_starts_with_the_version_before(store: Store, bench: Bench) -> None:
    fail(bench)
    start = restarted(bench, store)
    assert start.served.version.version == 1
    assert (start.refresh.status, start.refresh.degraded) == ("refused", False)
    assert start.refresh.rejected is not None
    assert start.refresh.rejected.version == 2


def test_a_replica_that_was_killed_before_it_recorded_its_return_starts_with_it_too(store: Store, bench: Bench) -> None:
    bench.admission.refusals.add(bench.app.served.version, "crashed", "it crashed")
    assert restarted(bench, store).served.version.version == 1


def test_without_a_version_before_it_stays_and_says_so(store: Store, tmp_path: Path) -> None:
    store.register("only-one", BAD, stage="Production")
    bench = Bench(store, "only-one", tmp_path)
    bench.admission.refusals.add(bench.app.served.version, "crashed", "it crashed")
    for _ in range(2):
        refresh = bench.poll()
    expected = (
        "version 1 failed in service: it crashed; it stays in service, as no version that it replaced can be served; "
        "another version, or a new value of its tag refusal.lifted, ends this"
    )
    assert (refresh.error, refresh.status, refresh.swaps) == (expected, "refused", 0)
    start = restarted(bench, store)
    assert (start.served.version.version, start.refresh.error, start.refresh.status) == (1, expected, "refused")


def loaded_fallback(bench: Bench) -> ServedPolicy | None:
    bench.app.served.fallback = None
    bench.watcher._withdrawal._sought = None
    bench.poll()
    return bench.app.served.fallback


def test_a_replica_that_starts_loads_the_version_before_after_its_first_poll(bench: Bench) -> None:
    fallback = loaded_fallback(bench)
    assert fallback is not None
    assert fallback.version.version == 1
    assert ask(bench.app, body=FATAL).headers["x-model-version"] == "1"


def test_it_does_so_while_the_registry_is_down(bench: Bench) -> None:
    bench.registry.failure = RegistryFailed("http://registry", "it is down")
    fallback = loaded_fallback(bench)
    assert fallback is not None
    assert fallback.version.version == 1


def test_a_version_with_other_spaces_or_a_refused_one_is_no_fallback(store: Store, tmp_path: Path) -> None:
    store.register("unlike", STEERING_BUNDLE, stage="Production")
    bench = Bench(store, "unlike", tmp_path, allow_space_change=True)
    promote(store, bench, CARTPOLE_BUNDLE)
    bench.poll()
    assert (bench.app.served.version.version, bench.app.served.fallback) == (2, None)
    promote(store, bench, CONTRARY_BUNDLE)
    bench.poll()
    before = bench.app.served.fallback
    assert before is not None
    bench.admission.refusals.add(before.version, "crashed", "it crashed")
    bench.poll()
    assert bench.app.served.fallback is None


def test_a_server_that_starts_says_with_which_version(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, versions = "models:/starting/Production", []
    known = LastKnownGood(tmp_path, store.uri, uri, application="starting")
    for bundle in (CARTPOLE_BUNDLE, BAD):
        store.register("starting", bundle, stage="Production")
        versions.append(registry.resolve(uri))
        known.save(versions[-1])
    Refusals(tmp_path, known.scope).add(versions[1], "crashed", "it crashed")
    arguments = Arguments(model_uri=uri, tracking_uri=store.uri, cache_dir=str(tmp_path))
    assert server.check_model(arguments).version.version == 1
    assert capsys.readouterr().err.splitlines() == [
        "Warning: version 2 failed in service: it crashed",
        "Starting with the last known good version, 1. Replicas keep polling the registry.",
    ]

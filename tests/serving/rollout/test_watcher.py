import asyncio
import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.registry.signing import sign
from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.integrity.statements import Subject
from serving.policy.bundle import KNOWN_FORMATS, Bundle
from serving.registry import registry
from serving.registry.access import DirectRegistry
from serving.registry.errors import RegistryFailed
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_version import ModelVersion
from serving.replica import refresh_state
from serving.replica.refresh_state import Refresh
from serving.rollout import watcher
from serving.rollout.candidate_admission import Admission
from serving.rollout.watcher import MAX_PAUSE_S, STALE_AFTER_S, Watcher
from tests.serving.asking import ask
from tests.serving.integrity.keys import signer, trusted
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, STEERING_BUNDLE, digest_tags
from tests.serving.store import Store
from tests.workshop import await_true

TILTED = b'{"observation": [0, 0, 1, 0]}'


class CountingRegistry(DirectRegistry):
    """A registry that counts its downloads, and whose polls can fail."""

    fetched = 0
    failure: BaseException | None = None
    fetch_failure: Exception | None = None

    def poll(self, model_uri: str) -> ModelVersion:
        if self.failure is not None:
            raise self.failure
        return super().poll(model_uri)

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        self.fetched += 1
        if self.fetch_failure is not None:
            raise self.fetch_failure
        return super().fetch(version, cache_dir)


class Bench:
    """The application of a replica and its watcher, which polls when a test says so."""

    def __init__(self, store: Store, name: str, cache: Path, *, allow_space_change: bool = False) -> None:
        self.uri = f"models:/{name}/Production"
        arguments = Arguments(
            model_uri=self.uri, cache_dir=str(cache), allow_space_change=allow_space_change, candidate_timeout_s=60
        )
        self.registry = CountingRegistry(store.uri)
        self.admission = Admission(self.registry, arguments, LastKnownGood(cache, store.uri, self.uri))
        self.app = PolicyApp(self.admission.admit(registry.resolve(self.uri)))
        self.watcher = Watcher(self.app, self.admission)
        self.registry.fetched = 0

    @property
    def name(self) -> str:
        return self.app.served.version.name

    def answer(self) -> tuple[object, str]:
        """The action for a tilted pole, and the version that computed it."""
        answer = ask(self.app, body=TILTED)
        return answer.json()["action"], answer.headers["x-model-version"]

    def poll(self) -> Refresh:
        self.watcher.poll()
        return self.app.refresh

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Let the watcher's thread poll every 10 ms."""
        self.watcher._arguments = self.admission.arguments.model_copy(update={"refresh_interval_s": 0.01})
        self.watcher.start()
        try:
            yield
        finally:
            self.watcher.stop()


@pytest.fixture
def bench(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    store.register(request.node.name, stage="Production")
    return Bench(store, request.node.name, tmp_path)


def promote(store: Store, bench: Bench, bundle: Bundle, tags: dict[str, str] | None = None) -> int:
    version = store.register(bench.name, bundle, tags=tags)
    store.promote(bench.name, version)
    return version


def test_a_promotion_replaces_the_policy_and_a_rollback_restores_it(store: Store, bench: Bench) -> None:
    assert bench.answer() == (1, "1")
    promote(store, bench, CONTRARY_BUNDLE)
    refresh = bench.poll()
    assert bench.answer() == (0, "2")
    assert (refresh.swaps, refresh.error, refresh.rejected) == (1, None, None)
    store.promote(bench.name, 1)
    bench.poll()
    assert bench.answer() == (1, "1")


def test_a_promotion_keeps_the_replaced_version_for_its_episodes_and_new_tags_replace_none(
    store: Store, bench: Bench
) -> None:
    from mlflow import MlflowClient

    replaced = bench.app.served
    promote(store, bench, CONTRARY_BUNDLE)
    bench.poll()
    current = bench.app.served
    MlflowClient().set_model_version_tag(bench.name, "2", "note", "checked")
    bench.poll()
    assert bench.app.served is not current
    assert bench.app.pinned(b"1") == (replaced, False)
    assert bench.app.pinned(b"2") == (bench.app.served, False)


def test_a_poll_that_returns_the_served_version_downloads_nothing(bench: Bench) -> None:
    before = bench.app.served
    assert bench.poll().last is not None
    assert bench.app.served is before
    assert bench.registry.fetched == 0


def test_new_tags_of_the_served_version_are_shown_without_loading_it_again(store: Store, bench: Bench) -> None:
    from mlflow import MlflowClient

    policy = bench.app.served.policy
    MlflowClient(store.uri).set_model_version_tag(bench.name, "1", "evaluation.return_mean", "7")
    bench.poll()
    assert bench.app.served.description["evaluation"] == {"return_mean": 7.0}
    assert bench.app.served.policy is policy


def test_a_version_that_was_registered_again_with_other_files_is_served(store: Store, bench: Bench) -> None:
    from mlflow import MlflowClient

    for file, content in (("model.onnx", CONTRARY_BUNDLE.graph), ("policy.json", CONTRARY_BUNDLE.policy)):
        store.file(bench.name, 1, file).write_bytes(content)
    for tag, digest in digest_tags(CONTRARY_BUNDLE).items():
        MlflowClient(store.uri).set_model_version_tag(bench.name, "1", tag, digest)
    assert bench.poll().swaps == 1
    assert bench.answer() == (0, "1")


def test_a_version_with_other_spaces_is_rejected(store: Store, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    promote(store, bench, STEERING_BUNDLE)
    refresh = bench.poll()
    assert bench.answer() == (1, "1")
    assert refresh.rejected is not None
    assert (refresh.rejected.version, refresh.rejections, refresh.swaps) == (2, {"spaces_differ": 1}, 0)
    assert refresh.rejected.reason.startswith("its observation space is Box(-10.0, 10.0, (1,), float32), that of the")
    assert [record.levelname for record in caplog.records if "is rejected" in record.message] == ["ERROR"]


def test_a_version_with_other_spaces_is_served_if_the_arguments_allow_it(store: Store, tmp_path: Path) -> None:
    store.register("widening", stage="Production")
    bench = Bench(store, "widening", tmp_path, allow_space_change=True)
    promote(store, bench, STEERING_BUNDLE)
    assert bench.poll().swaps == 1
    assert bench.app.served.version.version == 2


def test_a_rejected_version_is_tried_again_only_after_its_tags_change(
    store: Store, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    promote(store, bench, CONTRARY_BUNDLE, tags=digest_tags(CARTPOLE_BUNDLE))
    for _ in range(3):
        refresh = bench.poll()
    assert (bench.registry.fetched, refresh.rejections) == (1, {"digest_mismatch": 1})
    assert "was changed after it was registered" in str(refresh.error)
    assert caplog.text.count("is rejected") == 1
    for tag, digest in digest_tags(CONTRARY_BUNDLE).items():
        MlflowClient(store.uri).set_model_version_tag(bench.name, "2", tag, digest)
    assert bench.poll().error is None
    assert bench.answer() == (0, "2")


def test_another_version_after_a_rejected_one_is_served(store: Store, bench: Bench) -> None:
    promote(store, bench, CONTRARY_BUNDLE, tags={})
    assert "has no tag 'sha256.model.onnx'" in str(bench.poll().error)
    promote(store, bench, CONTRARY_BUNDLE)
    assert bench.poll().rejected is None
    assert bench.answer() == (0, "3")


def test_missing_files_are_tried_again_after_a_pause(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.file(bench.name, promote(store, bench, CONTRARY_BUNDLE), "")
    shutil.move(folder, f"{folder}-away")
    assert "cannot read model.onnx" in str(bench.poll().error)
    shutil.move(f"{folder}-away", folder)
    bench.poll()
    assert bench.registry.fetched == 1, "not before the pause"
    monkeypatch.setattr(watcher, "monotonic", lambda: time.monotonic() + MAX_PAUSE_S)
    assert bench.poll().error is None
    assert bench.answer() == (0, "2")


def test_a_version_is_tried_again_if_the_registry_failed_during_its_fetch(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, bench, CONTRARY_BUNDLE)
    bench.registry.fetch_failure = RegistryFailed("http://registry", "no answer within 300 s")
    assert bench.poll().rejections == {"registry_failed": 1}
    bench.registry.fetch_failure = None
    monkeypatch.setattr(watcher, "monotonic", lambda: time.monotonic() + MAX_PAUSE_S)
    assert bench.poll().error is None
    assert bench.answer() == (0, "2")


def test_after_an_outage_the_reason_of_a_rejected_version_is_shown_again(store: Store, bench: Bench) -> None:
    promote(store, bench, CONTRARY_BUNDLE, tags={})
    reason = bench.poll().error
    bench.registry.failure = RegistryFailed("http://registry", "connection refused")
    assert bench.poll().error == str(bench.registry.failure)
    bench.registry.failure = None
    assert bench.poll().error == reason


def test_the_pause_doubles_with_each_failed_attempt_to_serve_a_version(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(watcher, "monotonic", lambda: clock)
    shutil.rmtree(store.file(bench.name, promote(store, bench, CONTRARY_BUNDLE), ""))
    bench.poll()
    tried = []
    while clock < 2 * 2 + 2 * 4:  # the interval is 2 s; the pauses are at most 4 and 8 s, and at least half of that
        clock += 0.5
        before = bench.registry.fetched
        bench.poll()
        tried += [clock] * (bench.registry.fetched - before)
    first, second = tried[:2]
    assert 2 <= first <= 4.5
    assert 4 <= second - first <= 8.5


def test_the_pauses_of_another_version_begin_anew(store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(watcher, "monotonic", lambda: clock)
    bench.registry.fetch_failure = RegistryFailed("http://registry", "no answer within 300 s")
    promote(store, bench, CONTRARY_BUNDLE)
    for _ in range(8):
        bench.poll()
        clock += MAX_PAUSE_S
    promote(store, bench, CONTRARY_BUNDLE)
    bench.poll()
    bench.registry.fetch_failure = None
    clock += 4  # twice the interval
    assert bench.poll().error is None
    assert bench.answer() == (0, "3")


def test_a_full_disk_is_tried_again_after_a_pause(
    store: Store, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.write_text("not a directory")
    promote(store, bench, CONTRARY_BUNDLE)
    assert "cannot write the bundle cache" in str(bench.poll().error)
    assert bench.answer() == (1, "1")
    tmp_path.unlink()
    tmp_path.mkdir()
    monkeypatch.setattr(watcher, "monotonic", lambda: time.monotonic() + MAX_PAUSE_S)
    assert bench.poll().error is None
    assert bench.answer() == (0, "2")


def test_the_pause_doubles_with_each_failed_poll_up_to_a_maximum(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert 1.5 < bench.watcher.pause_s() <= 2
    bench.registry.failure = RegistryFailed("http://registry", "connection refused")
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            refresh = bench.poll()
    assert refresh.error == "the model registry at http://registry failed: connection refused"
    assert MAX_PAUSE_S / 2 <= bench.watcher.pause_s() <= MAX_PAUSE_S
    assert caplog.text.count("stays in service") == 1
    assert bench.answer() == (1, "1")
    bench.registry.failure = None
    assert bench.poll().error is None
    assert bench.watcher.pause_s() <= 2


@pytest.mark.parametrize("failures", [1023, 1024, 10**9])
def test_the_pause_stays_bounded_after_any_number_of_failures(failures: int) -> None:
    """Six hours without MLflow are a thousand failed polls, and 2.0 ** 1024 is no float."""
    assert MAX_PAUSE_S / 2 <= watcher._backoff_s(2.0, failures) <= MAX_PAUSE_S


def test_an_empty_stage_is_reported_and_the_version_stays_in_service(store: Store, bench: Bench) -> None:
    store.promote(bench.name, 1, "Archived", archive=False)
    assert str(bench.poll().error).startswith("No version of")
    assert bench.answer() == (1, "1")


def test_an_empty_stage_is_no_failure_so_that_the_next_promotion_is_seen_at_the_usual_interval(
    store: Store, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    store.promote(bench.name, 1, "Archived", archive=False)
    for _ in range(10):
        refresh = bench.poll()
    assert bench.watcher.pause_s() <= 2
    assert refresh.last is not None, "the registry has answered"
    assert caplog.text.count("stays in service") == 1
    promote(store, bench, CONTRARY_BUNDLE)
    assert (bench.poll().error, bench.answer()) == (None, (0, "2"))


def test_a_version_that_left_the_stage_is_no_longer_shown_as_rejected(store: Store, bench: Bench) -> None:
    promote(store, bench, CONTRARY_BUNDLE, tags={})
    assert bench.poll().rejected is not None
    store.promote(bench.name, 2, "Archived", archive=False)
    assert bench.poll().rejected is None
    store.promote(bench.name, 2)
    assert bench.poll().rejections == {"digest_missing": 2}, "promoted again, it is tried again"


def test_an_unexpected_exception_of_the_registry_counts_as_a_failed_poll(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.registry.failure = KeyError("http://user:secret@registry")
    for _ in range(10):
        refresh = bench.poll()
    assert refresh.error == "KeyError; the replica's log has the details"
    assert MAX_PAUSE_S / 2 <= bench.watcher.pause_s() <= MAX_PAUSE_S
    assert caplog.text.count("Traceback") == 1


def test_an_unexpected_exception_of_the_admission_is_reported_and_the_version_tried_again_after_a_pause(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, bench, CONTRARY_BUNDLE)
    bench.registry.fetch_failure = BlockingIOError("fork: Resource temporarily unavailable")
    for _ in range(3):
        refresh = bench.poll()
    assert (refresh.rejections, bench.registry.fetched) == ({"internal_error": 1}, 1)
    assert refresh.error == "version 2: BlockingIOError; the replica's log has the details"
    bench.registry.fetch_failure = None
    monkeypatch.setattr(watcher, "monotonic", lambda: time.monotonic() + MAX_PAUSE_S)
    assert bench.poll().error is None
    assert bench.answer() == (0, "2")


def test_a_poll_that_the_end_of_the_replica_breaks_off_is_not_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.registry.failure = RegistryFailed("sqlite:///mlflow.db", "broken pipe")
    bench.watcher.stop()
    bench.watcher.poll()
    assert caplog.text == ""


@pytest.mark.parametrize("exception", [ZeroDivisionError(), MemoryError(), SystemExit(1)], ids=repr)
def test_the_thread_survives_any_exception(
    bench: Bench, caplog: pytest.LogCaptureFixture, exception: BaseException
) -> None:
    bench.registry.failure = exception
    with bench.polling():
        await_true(lambda: type(exception).__name__ in caplog.text, "the log shows the exception", 30)
        bench.registry.failure = None
        await_true(lambda: bench.app.refresh.last is not None, "the next poll succeeds", 30)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "watcher"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_health_check_of_serve_replaces_a_thread_that_has_died_and_only_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.app import PolicyReplica

    def check_health() -> None:
        replica: Any = SimpleNamespace(_watcher=bench.watcher, _credentials=None)  # only Serve can start a whole one
        asyncio.run(PolicyReplica.check_health(replica))

    with monkeypatch.context() as broken, bench.polling():
        broken.setattr(Watcher, "pause_s", lambda _: 1 / 0)
        bench.watcher.start()
        await_true(lambda: not threads(), "the thread has died")
        broken.undo()
        check_health()
        await_true(lambda: bench.app.refresh.last is not None, "another thread polls", 30)
        check_health()
        assert len(threads()) == 1
    await_true(lambda: not threads(), "the thread has stopped")
    check_health()
    assert not threads(), "a watcher that was stopped stays so"


def health(bench: Bench) -> tuple[int, str]:
    answer = ask(bench.app, "GET", "/health")
    return answer.status, answer.json()["status"]


@pytest.mark.parametrize("hangs", [False, True], ids=["the polls fail", "a poll hangs"])
def test_health_reports_a_registry_that_has_not_answered_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """It stays 200: the replica answers requests as before, and no load balancer should remove it."""
    waiting = threading.Event()
    bench.registry.failure = RegistryFailed("http://registry", "connection refused")
    poll = bench.registry.poll

    def hang(model_uri: str) -> ModelVersion:
        waiting.wait(60)
        return poll(model_uri)

    if hangs:
        monkeypatch.setattr(bench.registry, "poll", hang)
    with bench.polling():
        await_true(lambda: bench.app.refresh.stale_at < math.inf, "the watcher has started")
        assert health(bench) == (200, "ok")
        with monkeypatch.context() as later:
            later.setattr(refresh_state, "monotonic", lambda: time.monotonic() + STALE_AFTER_S)
            assert health(bench) == (200, "stale")
            assert ask(bench.app, "GET", "/model").json()["stale"]
        bench.registry.failure = None
        waiting.set()
        await_true(lambda: bench.app.refresh.last is not None, "the registry answers")
        assert health(bench) == (200, "ok")


def test_the_time_without_an_answer_begins_at_the_last_one_and_is_longer_with_a_long_interval(bench: Bench) -> None:
    bench.poll()
    assert STALE_AFTER_S - 5 < bench.app.refresh.stale_at - time.monotonic() <= STALE_AFTER_S
    bench.watcher._arguments = bench.admission.arguments.model_copy(update={"refresh_interval_s": 3600.0})
    bench.poll()
    assert 3 * 3600 - 5 < bench.app.refresh.stale_at - time.monotonic() <= 3 * 3600


def test_a_pinned_version_is_never_stale_because_nothing_polls_it_once_it_is_confirmed(bench: Bench) -> None:
    pinned = {"model_uri": f"models:/{bench.name}/1", "refresh_interval_s": 0.01}
    bench.admission.arguments = bench.admission.arguments.model_copy(update=pinned)
    bench.app.refresh = Refresh(error="it is down", degraded=True)
    bench.watcher = Watcher(bench.app, bench.admission)
    bench.watcher.start()
    await_true(lambda: bench.app.refresh.last is not None and not threads(), "the version is confirmed")
    assert (bench.app.refresh.stale_at, health(bench)) == (math.inf, (200, "ok"))
    bench.watcher.start()
    assert not threads()


def test_a_version_of_a_later_format_is_refused_by_name_and_the_old_one_stays(store: Store, bench: Bench) -> None:
    later = json.dumps({**json.loads(CARTPOLE_BUNDLE.policy), "format": max(KNOWN_FORMATS) + 1})
    promote(store, bench, Bundle(CONTRARY_BUNDLE.graph, later.encode()))
    refresh = bench.poll()
    assert bench.answer() == (1, "1")
    assert refresh.rejected is not None
    assert refresh.rejected.reason == "policy.json is of format 2; this server knows 1: upgrade it first"


def test_a_promoted_version_without_a_signature_is_rejected_until_somebody_signs_it(
    store: Store, bench: Bench, tmp_path: Path
) -> None:
    key = signer()
    requirements = {"trusted_key": (trusted(tmp_path, key),)}
    bench.admission.arguments = bench.admission.arguments.model_copy(update=requirements)
    store.file(bench.name, promote(store, bench, CONTRARY_BUNDLE), "model.onnx").rename(tmp_path / "hidden")
    refresh = bench.poll()
    assert refresh.rejected is not None
    assert (refresh.rejected.version, refresh.rejections) == (2, {"signature_missing": 1})
    assert (bench.answer(), bench.registry.fetched) == ((1, "1"), 0), "no file of the version was read"
    (tmp_path / "hidden").rename(store.file(bench.name, 2, "model.onnx"))
    sign(Subject.of(registry.resolve(bench.uri)), key)
    assert (bench.poll().rejected, bench.answer()) == (None, (0, "2"))


def test_a_version_of_a_key_that_is_trusted_later_is_served_then(
    store: Store, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, file = signer(), Path(trusted(tmp_path, signer()))
    bench.admission.arguments = bench.admission.arguments.model_copy(update={"trusted_key": (str(file),)})
    promote(store, bench, CONTRARY_BUNDLE)
    sign(Subject.of(registry.resolve(bench.uri)), key)
    assert bench.poll().rejections == {"signature_untrusted": 1}
    Path(trusted(tmp_path, key)).replace(file)
    monkeypatch.setattr(watcher, "monotonic", lambda: time.monotonic() + MAX_PAUSE_S)
    assert (bench.poll().rejected, bench.answer()) == (None, (0, "2"))

import logging
import shutil
from pathlib import Path

import pytest

from serving.http.app import PolicyApp
from serving.policy.policy import Bundle
from serving.registry import registry
from serving.registry.errors import RegistryFailed
from serving.registry.last_known_good import LastKnownGood
from serving.registry.poller import InProcess
from serving.registry.registry import ModelVersion
from serving.replica.refresh_state import Refresh
from serving.rollout.admission import Admission, Settings
from serving.rollout.trial import Limits
from serving.rollout.watcher import MAX_PAUSE_S, Watcher
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, STEERING_BUNDLE, Store, ask, digest_tags

TILTED = b'{"observation": [0, 0, 1, 0]}'


class Counting(InProcess):
    """A registry that counts what it is asked, and may be down."""

    fetched = 0
    down = False

    def poll(self, model_uri: str) -> ModelVersion:
        if self.down:
            raise RegistryFailed("http://registry", "connection refused")
        return super().poll(model_uri)

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        self.fetched += 1
        return super().fetch(version, cache_dir)


class Bench:
    """A replica's application, watched, one look at a time."""

    def __init__(self, store: Store, name: str, cache: Path, *, allow_space_change: bool = False) -> None:
        self.uri = f"models:/{name}/Production"
        settings = Settings(self.uri, cache, allow_space_change=allow_space_change, limits=Limits(timeout_s=60))
        self.registry = Counting(store.uri)
        admission = Admission(self.registry, settings, LastKnownGood(cache, store.uri, self.uri))
        self.app = PolicyApp(admission.admit(registry.resolve(self.uri)))
        self.watcher = Watcher(self.app, self.registry, admission, settings)
        self.registry.fetched = 0

    def answer(self) -> tuple[object, str]:
        """The action for a tilted pole, and the version that chose it."""
        answer = ask(self.app, body=TILTED)
        return answer.json()["action"], answer.headers["x-model-version"]

    def look(self) -> Refresh:
        self.watcher.look()
        return self.app.refresh


@pytest.fixture
def bench(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    store.register(request.node.name, stage="Production")
    return Bench(store, request.node.name, tmp_path)


def name_of(bench: Bench) -> str:
    return bench.app.served.version.name


def promote(store: Store, bench: Bench, bundle: Bundle, tags: dict[str, str] | None = None) -> int:
    version = store.register(name_of(bench), bundle, tags=tags)
    store.promote(name_of(bench), version)
    return version


def test_a_promotion_replaces_the_policy_and_a_rollback_puts_it_back(store: Store, bench: Bench) -> None:
    assert bench.answer() == (1, "1")
    promote(store, bench, CONTRARY_BUNDLE)
    refresh = bench.look()
    assert bench.answer() == (0, "2")
    assert (refresh.swaps, refresh.error, refresh.refused) == (1, None, None)
    store.promote(name_of(bench), 1)
    bench.look()
    assert bench.answer() == (1, "1")


def test_a_look_that_finds_nothing_new_costs_no_download(bench: Bench) -> None:
    before = bench.app.served
    assert bench.look().last is not None
    assert bench.app.served is before
    assert bench.registry.fetched == 0


def test_new_figures_of_the_same_version_are_shown_without_loading_it_again(store: Store, bench: Bench) -> None:
    from mlflow import MlflowClient

    policy = bench.app.served.policy
    MlflowClient(store.uri).set_model_version_tag(name_of(bench), "1", "evaluation.return_mean", "7")
    bench.look()
    assert bench.app.served.description["evaluation"] == {"return_mean": 7.0}
    assert bench.app.served.policy is policy


def test_a_version_of_other_spaces_is_refused(store: Store, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    promote(store, bench, STEERING_BUNDLE)
    refresh = bench.look()
    assert bench.answer() == (1, "1")
    assert refresh.refused is not None
    assert (refresh.refused.version, refresh.refusals, refresh.swaps) == (2, {"spaces_differ": 1}, 0)
    assert refresh.refused.reason.startswith("its observation space is Box(-10.0, 10.0, (1,), float32), the one being")
    assert [record.levelname for record in caplog.records if "is refused" in record.message] == ["ERROR"]


def test_a_version_of_other_spaces_is_served_where_that_is_allowed(store: Store, tmp_path: Path) -> None:
    store.register("widening", stage="Production")
    bench = Bench(store, "widening", tmp_path, allow_space_change=True)
    promote(store, bench, STEERING_BUNDLE)
    assert bench.look().swaps == 1
    assert bench.app.served.version.version == 2


def test_a_refused_version_is_not_downloaded_again_until_its_tags_change(store: Store, bench: Bench) -> None:
    from mlflow import MlflowClient

    promote(store, bench, CONTRARY_BUNDLE, tags=digest_tags(CARTPOLE_BUNDLE))
    for _ in range(3):
        refresh = bench.look()
    assert (bench.registry.fetched, refresh.refusals) == (1, {"digest_mismatch": 1})
    assert "was changed after it was registered" in str(refresh.error)
    for tag, digest in digest_tags(CONTRARY_BUNDLE).items():
        MlflowClient(store.uri).set_model_version_tag(name_of(bench), "2", tag, digest)
    assert bench.look().error is None
    assert bench.answer() == (0, "2")


def test_another_version_after_a_refused_one_is_served(store: Store, bench: Bench) -> None:
    promote(store, bench, CONTRARY_BUNDLE, tags={})
    assert "has no tag 'sha256.model.onnx'" in str(bench.look().error)
    promote(store, bench, CONTRARY_BUNDLE)
    assert bench.look().refused is None
    assert bench.answer() == (0, "3")


def test_missing_files_are_looked_for_again_after_a_while(
    store: Store, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.file(name_of(bench), promote(store, bench, CONTRARY_BUNDLE), "")
    shutil.move(folder, f"{folder}-away")
    assert "cannot read model.onnx" in str(bench.look().error)
    shutil.move(f"{folder}-away", folder)
    bench.look()
    assert bench.registry.fetched == 1, "not at once"
    monkeypatch.setattr("serving.rollout.watcher.MAX_PAUSE_S", 0.0)
    bench.watcher._refused = None
    bench.look()
    assert bench.answer() == (0, "2")


def test_a_cache_that_cannot_be_written_refuses_the_new_and_keeps_the_old(
    store: Store, bench: Bench, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.write_text("no directory")
    promote(store, bench, CONTRARY_BUNDLE)
    assert "cannot write the bundle cache" in str(bench.look().error)
    assert bench.answer() == (1, "1")
    tmp_path.unlink()
    tmp_path.mkdir()


def test_a_registry_that_is_down_is_asked_less_and_less_often(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert 1.5 < bench.watcher.pause_s() <= 2
    bench.registry.down = True
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            refresh = bench.look()
    assert refresh.error == "the model registry at http://registry failed: connection refused"
    assert MAX_PAUSE_S / 2 <= bench.watcher.pause_s() <= MAX_PAUSE_S
    assert caplog.text.count("cannot be refreshed") == 1
    assert bench.answer() == (1, "1")
    bench.registry.down = False
    assert bench.look().error is None
    assert bench.watcher.pause_s() <= 2


def test_an_emptied_stage_changes_nothing_but_is_said(store: Store, bench: Bench) -> None:
    store.promote(name_of(bench), 1, "Archived", archive=False)
    assert str(bench.look().error).startswith("No version of")
    assert bench.answer() == (1, "1")


def test_a_request_under_way_is_answered_by_the_version_it_began_with(store: Store, bench: Bench) -> None:
    old = bench.app.served
    promote(store, bench, CONTRARY_BUNDLE)
    bench.look()
    assert old.answer(TILTED) == b'{"action":1}'
    assert (b"x-model-version", b"1") in old.headers


def test_the_thread_notices_by_itself(store: Store, tmp_path: Path) -> None:
    from tests.workshop import await_true

    store.register("noticed", stage="Production")
    bench = Bench(store, "noticed", tmp_path)
    bench.watcher._settings = Settings(bench.uri, tmp_path, refresh_interval_s=0.05)
    bench.watcher.start()
    promote(store, bench, CONTRARY_BUNDLE)
    await_true(lambda: bench.answer() == (0, "2"), "the promoted version answers")
    bench.watcher.stop()

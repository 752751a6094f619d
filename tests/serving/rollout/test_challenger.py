"""A replica loads and releases the challenger that the registry names; a real registry, a poll when a test says so."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.experiments.experiment import Experiment, Step
from serving.http.policy_app import PolicyApp
from serving.integrity.statements import GATE, GATE_TAG, Subject
from serving.policy.bundle import Bundle
from serving.registry import registry
from serving.registry.access import DirectRegistry
from serving.registry.cache import BundleCache
from serving.registry.errors import RegistryFailed
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_version import ModelVersion
from serving.rollout import candidate_admission, challenger
from serving.rollout.candidate_admission import Admission
from serving.rollout.challenger import first_challenge
from serving.rollout.errors import CandidateRejected
from serving.rollout.initial_policy import load_initial_policy
from serving.rollout.refusals import LIFTED
from serving.rollout.watcher import Watcher
from tests.serving.asking import ask
from tests.serving.experiment import CHALLENGERS
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, STEERING_BUNDLE, digest_tags
from tests.serving.store import Store

TILTED = b'{"observation": [0, 0, 1, 0]}'
TAG = "experiment.stage.Production"


class Away(DirectRegistry):
    """A registry that can be away."""

    is_away = False

    def poll(self, model_uri: str) -> ModelVersion:
        if self.is_away:
            raise RegistryFailed("nowhere", "it is away")
        return super().poll(model_uri)


class Bench:
    """Version 1 in Production, another version, and a replica of version 1."""

    def __init__(self, store: Store, name: str, cache: Path, bundle: Bundle = CONTRARY_BUNDLE, **more: Any) -> None:
        self.store, self.name = store, name
        store.register(name, stage="Production")
        self.challenger = store.register(name, bundle)
        uri = f"models:/{name}/Production"
        self.arguments = Arguments(
            model_uri=uri, tracking_uri=store.uri, cache_dir=str(cache), candidate_timeout_s=60, **more
        )
        self.registry = Away(store.uri)
        self.known = LastKnownGood(cache, store.uri, uri)
        self.admission = Admission(self.registry, self.arguments, self.known)
        self.app = PolicyApp(self.admission.admit(registry.resolve(uri)))
        self.watcher = Watcher(self.app, self.admission)
        now = time.time()
        self.state = Experiment("e1", "salt", 1, self.challenger, (Step(now - 1, 1.0),), now + 1000)

    def tag(self, state: Experiment | None) -> None:
        """Write the state of the experiment, as `pipeline` does."""
        from mlflow import MlflowClient

        client = MlflowClient(self.store.uri)
        if state is None:
            client.delete_model_version_tag(self.name, "1", TAG)
        else:
            client.set_model_version_tag(self.name, "1", TAG, state.to_tag())

    def start(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self.tag(self.state)
        self.watcher.poll()

    @property
    def loaded(self) -> int | None:
        """The number of the challenger that is loaded."""
        return self.app.challenge and self.app.challenge.served.version.version

    def answer(self, **headers: str) -> tuple[str, str | None]:
        """The version that answers an episode of the challenger, and X-Repinned."""
        names = {"X-Episode-Id": CHALLENGERS[0]} | {name.replace("_", "-"): it for name, it in headers.items()}
        answer = ask(self.app, body=TILTED, headers=names)
        return answer.headers["x-model-version"], answer.headers.get("x-repinned")


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Bundle]:
    """The bundles that were tried. A trial takes a second; tests/serving/rollout/test_candidate_trial.py runs it."""
    tried: list[Bundle] = []
    monkeypatch.setattr(candidate_admission, "run_trial", lambda bundle, *_, **__: tried.append(bundle))
    return tried


@pytest.fixture
def bench(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(store, request.node.name, tmp_path)


def test_a_poll_that_finds_an_experiment_loads_the_challenger(bench: Bench) -> None:
    bench.watcher.poll()
    assert (bench.loaded, bench.answer()) == (None, ("1", None))
    bench.start()
    assert (bench.loaded, bench.answer()) == (2, ("2", None))
    assert (bench.app.refresh.swaps, bench.app.refresh.error) == (0, None)


def test_the_challenger_is_loaded_before_the_first_step_begins(bench: Bench) -> None:
    bench.start(shares=(Step(time.time() + 100, 1.0),))
    assert (bench.loaded, bench.answer()) == (2, ("1", None))


def test_other_shares_do_not_load_it_again(bench: Bench) -> None:
    bench.start(shares=(Step(time.time() + 100, 1.0),))
    before = bench.app.challenge
    bench.start(shares=(Step(0.0, 1.0),))
    assert before is not None
    assert bench.app.challenge is not None
    assert bench.app.challenge.served is before.served
    assert bench.answer() == ("2", None)


@pytest.mark.parametrize("end", ["decision", "tag", "champion", "challenger"])
def test_it_is_released_when_the_experiment_ends(bench: Bench, end: str) -> None:
    from mlflow import MlflowClient

    bench.start()
    assert bench.answer(x_pin_version="2") == ("2", None)
    if end == "decision":
        bench.tag(replace(bench.state, decision="rolled back"))
    elif end == "tag":
        bench.tag(None)
    elif end == "champion":
        bench.store.promote(bench.name, bench.store.register(bench.name))
    else:
        MlflowClient(bench.store.uri).delete_model_version(bench.name, "2")
    bench.watcher.poll()
    expected = "3" if end == "champion" else "1"
    assert (bench.loaded, bench.answer(x_pin_version="2")) == (None, (expected, "true"))


def test_an_empty_stage_ends_the_experiment(bench: Bench) -> None:
    bench.start()
    bench.store.promote(bench.name, 1, "Archived", archive=False)
    bench.watcher.poll()
    assert (bench.loaded, bench.answer()) == (None, ("1", None))


def test_a_champion_that_cannot_be_served_ends_the_experiment_of_the_one_that_stays(bench: Bench) -> None:
    bench.start()
    bench.store.promote(bench.name, bench.store.register(bench.name, STEERING_BUNDLE))
    bench.watcher.poll()
    assert (bench.loaded, bench.answer()) == (None, ("1", None))


def test_it_expires_by_the_clock_of_the_replica_while_the_registry_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start()
    bench.registry.is_away = True
    bench.watcher.poll()
    assert (bench.loaded, bench.answer()) == (2, ("2", None))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2000)
    assert bench.answer(x_pin_version="2") == ("1", "true")  # before the next poll
    bench.watcher.poll()
    assert bench.loaded is None


def test_an_episode_of_the_challenger_goes_on_through_its_promotion(bench: Bench) -> None:
    bench.start()
    for promote in (
        lambda: bench.tag(replace(bench.state, decision="promoted")),
        lambda: bench.store.promote(bench.name, 2),
    ):
        promote()
        bench.watcher.poll()
        assert (bench.loaded, bench.answer(x_pin_version="2")) == (None, ("2", None))
        assert bench.answer(x_pin_version="1") == ("1", None)


@pytest.mark.parametrize("name", ["spaces", "digest", "gate"])
def test_a_challenger_that_may_not_be_served_is_refused_and_shown_and_gets_no_episode(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    bundle = STEERING_BUNDLE if name == "spaces" else CONTRARY_BUNDLE
    bench = Bench(store, request.node.name, tmp_path, bundle, allow_space_change=True)
    if name == "digest":
        store.file(bench.name, 2, "model.onnx").write_bytes(b"other")
    if name == "gate":
        bench.admission.arguments = bench.arguments.model_copy(update={"require_gate": True})
    for _ in range(3):
        bench.start()
    code = {"spaces": "spaces_differ", "digest": "digest_mismatch", "gate": "gate_not_passed"}[name]
    refused = ask(bench.app, "GET", "/model").json()
    assert (refused["refused"]["version"], refused["refused"]["code"], refused["refusals"]) == (2, code, 1)
    assert (refused["refresh_error"][:11], refused["experiment"]["share"]) == ("version 2: ", 0.0)
    assert (bench.loaded, bench.answer()) == (None, ("1", None))


@pytest.mark.parametrize(("stage", "loaded"), [("Production", 2), ("Staging", None)])
def test_a_required_gate_is_that_of_the_champions_stage(bench: Bench, stage: str, loaded: int | None) -> None:
    from mlflow import MlflowClient

    statement = Subject.of(registry.resolve(f"models:/{bench.name}/2")).statement(
        GATE, {"target": f"stage.{stage}", "passed": True}
    )
    MlflowClient(bench.store.uri).set_model_version_tag(bench.name, "2", f"{GATE_TAG}stage.{stage}", statement)
    bench.admission.arguments = bench.arguments.model_copy(update={"require_gate": True})
    bench.start()
    assert bench.loaded == loaded


def test_a_refused_challenger_is_tried_again_when_its_tags_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(bench.store.uri)
    client.set_model_version_tag(bench.name, "2", "sha256.model.onnx", "00")
    bench.start()
    assert bench.loaded is None
    monkeypatch.setattr(challenger, "monotonic", lambda: 1e12)  # an error that no time heals
    bench.watcher.poll()
    assert bench.app.refresh.rejections == {"digest_mismatch": 1}
    for tag, digest in digest_tags(CONTRARY_BUNDLE).items():
        client.set_model_version_tag(bench.name, "2", tag, digest)
    bench.watcher.poll()
    assert (bench.loaded, bench.app.refresh.rejected) == (2, None)


def test_files_that_are_missing_for_a_while_are_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bench.store.file(bench.name, 2, "model.onnx")
    content = file.read_bytes()
    file.unlink()
    bench.start()
    file.write_bytes(content)
    bench.watcher.poll()
    assert bench.loaded is None
    monkeypatch.setattr(challenger, "monotonic", lambda: 1e12)
    bench.watcher.poll()
    assert (bench.loaded, bench.app.refresh.error) == (2, None)


def test_a_challenger_that_failed_in_service_gets_no_episode_and_is_shown(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    bench.start()
    version = registry.resolve(f"models:/{bench.name}/2")
    refusal = bench.admission.refusals.add(version, "crashed", "it crashed")  # as another replica does
    bench.watcher._look()
    assert (bench.loaded, bench.answer(x_pin_version="2")) == (None, ("1", "true"))
    for _ in range(2):
        refused = ask(bench.app, "GET", "/model").json()["refused"]
        assert refused == {"version": 2, "code": "crashed", "reason": "it crashed", "at": refusal.at}
        bench.watcher.poll()
    assert bench.app.refresh.error == refusal.describe(1)
    assert bench.app.refresh.rejections == {"crashed": 1}
    assert caplog.text.count(f"the challenger, {refusal.describe(1)}") == 1
    MlflowClient(bench.store.uri).set_model_version_tag(bench.name, "2", LIFTED, "mended")
    bench.watcher.poll()
    assert (bench.loaded, bench.app.refresh.rejected) == (2, None)


def test_the_challenger_is_tried_once_for_all_replicas_of_a_node(bench: Bench, trials: list[Bundle]) -> None:
    assert trials == [CARTPOLE_BUNDLE]
    bench.start()
    found = first_challenge(bench.admission, bench.app.served)
    assert found is not None
    assert (found.experiment, found.served.version.version) == (bench.state, 2)
    assert trials == [CARTPOLE_BUNDLE, CONTRARY_BUNDLE]


def test_a_challenger_that_fails_its_trial_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(*_: Any, **__: Any) -> None:
        raise CandidateRejected("it ends its process")

    monkeypatch.setattr(candidate_admission, "run_trial", reject)
    bench.start()
    assert (bench.loaded, bench.app.refresh.rejections) == (None, {"candidate_refused": 1})


def test_a_replica_that_starts_takes_part_before_its_first_request(bench: Bench) -> None:
    bench.tag(bench.state)
    start = load_initial_policy(bench.arguments)
    assert start.challenge is not None
    assert (start.challenge.experiment, start.challenge.served.version.version) == (bench.state, 2)


def test_a_replica_that_starts_while_the_registry_is_down_takes_part_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start()

    def fail(*_: Any) -> Any:
        raise RegistryFailed("nowhere", "it is away")

    for name in ("resolve", "poll"):
        monkeypatch.setattr(registry, name, fail)
    monkeypatch.setattr(DirectRegistry, "poll", fail)
    served = bench.admission.last_known_good()
    assert served is not None
    found = first_challenge(bench.admission, served)
    assert found is not None
    assert (found.experiment, found.served.version.version) == (bench.state, 2)


def test_a_replica_that_starts_with_the_champion_of_an_experiment_that_was_superseded_takes_no_part(
    bench: Bench,
) -> None:
    bench.start()
    bench.store.promote(bench.name, bench.store.register(bench.name))
    bench.store.file(bench.name, 3, "model.onnx").write_bytes(b"other")
    start = load_initial_policy(bench.arguments)
    assert (start.challenge, start.served.version.version, start.refresh.degraded) == (None, 1, True)


def test_a_challenger_that_cannot_be_loaded_at_the_start_keeps_no_replica_from_starting(bench: Bench) -> None:
    bench.tag(bench.state)
    bench.store.file(bench.name, 2, "model.onnx").write_bytes(b"other")
    start = load_initial_policy(bench.arguments)
    assert (start.challenge, start.served.version.version) == (None, 1)


def test_the_cache_keeps_the_bundle_of_the_challenger(bench: Bench, tmp_path: Path) -> None:
    bench.start()
    assert bench.app.challenge is not None
    kept = BundleCache(tmp_path).path(bench.app.challenge.served.version)
    bench.known.prune_cache(0)
    assert kept.exists()
    assert json.loads(next(tmp_path.glob("good/*.json")).read_text())["version"]["challenger"]["version"] == 2


def test_the_policy_of_the_challenger_is_the_one_of_its_files(bench: Bench) -> None:
    bench.start()
    assert ask(bench.app, body=TILTED, headers={"X-Episode-Id": CHALLENGERS[0]}).json() == {"action": 0}
    assert ask(bench.app, body=TILTED).json() == {"action": 1}
    assert CARTPOLE_BUNDLE != CONTRARY_BUNDLE

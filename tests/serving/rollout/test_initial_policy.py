from pathlib import Path
from time import monotonic

import pytest

from pipeline.registry.signing import sign
from serving.arguments import Arguments
from serving.commands import run as server
from serving.http.policy_app import PolicyApp
from serving.integrity.errors import SignatureMissing
from serving.integrity.statements import Subject
from serving.registry.access import DirectRegistry
from serving.registry.errors import DigestMismatch, RegistryFailed, TrackingServerUnreachable, VersionMissing
from serving.registry.model_version import Resolved
from serving.registry.registry import fetch, resolve
from serving.rollout import initial_policy
from serving.rollout.initial_policy import InitialPolicy, load_initial_policy
from tests.serving.asking import answer, ask
from tests.serving.integrity.keys import signer, trusted
from tests.serving.policies import CONTRARY_BUNDLE, STEERING_BUNDLE
from tests.serving.store import Store


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tests/serving/registry/test_access.py` shows that the subprocess of a replica returns the same."""
    monkeypatch.setattr(initial_policy, "open_registry", DirectRegistry)


def start(
    store: Store,
    uri: str,
    cache: Path,
    deployment: str | None = None,
    *,
    allow: bool = False,
    application: str | None = None,
) -> InitialPolicy:
    arguments = Arguments(model_uri=uri, tracking_uri=store.uri, cache_dir=str(cache), allow_space_change=allow)
    return load_initial_policy(arguments, deployment, application=application)


def test_a_replica_loads_the_version_that_its_uri_refers_to(store: Store, tmp_path: Path) -> None:
    version = store.register("loading", stage="Staging")
    initial = start(store, "models:/loading/Staging", tmp_path)
    assert (initial.served.version.name, initial.served.version.version) == ("loading", version)
    assert answer(initial.served, b'{"observation": [0, 0, 1, 0]}') == b'{"action":1}'
    assert not initial.refresh.degraded


def test_the_tracking_uri_of_the_arguments_comes_before_that_of_the_environment(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("explicit", stage="Production")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/another.db")
    assert start(store, "models:/explicit/Production", tmp_path).served.version.name == "explicit"


def test_a_replica_adds_the_password_of_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://robot:s3cret@127.0.0.1:1")
    monkeypatch.setattr(initial_policy, "open_registry", lambda uri: used.append(uri) or DirectRegistry(uri))
    arguments = Arguments(tracking_uri="http://127.0.0.1:1", cache_dir=str(tmp_path))
    with pytest.raises(TrackingServerUnreachable):
        load_initial_policy(arguments)
    assert used == ["http://robot:s3cret@127.0.0.1:1"]


def test_without_a_tracking_uri_that_of_the_environment_is_used(store: Store, tmp_path: Path) -> None:
    store.register("implicit", stage="Production")
    arguments = Arguments(model_uri="models:/implicit/Production", cache_dir=str(tmp_path))
    assert load_initial_policy(arguments).served.version.name == "implicit"


def test_a_replica_takes_what_the_command_has_just_resolved_and_asks_no_registry(store: Store, tmp_path: Path) -> None:
    version = store.register("handed", stage="Production")
    arguments = Arguments(
        model_uri="models:/handed/Production", tracking_uri="http://127.0.0.1:1", cache_dir=str(tmp_path)
    )
    resolved = Resolved(resolve("models:/handed/Production"))
    fetch(resolved.version, tmp_path)  # as the command does
    initial = load_initial_policy(arguments, "a", resolved)
    assert (initial.served.version.version, initial.refresh.degraded) == (version, False)


def test_a_replica_that_starts_later_asks_the_registry(store: Store, tmp_path: Path) -> None:
    store.register("later", stage="Production")
    old = Resolved(resolve("models:/later/Production"), at=monotonic() - 61)
    version = store.register("later", stage="Production")
    arguments = Arguments(model_uri="models:/later/Production", tracking_uri=store.uri, cache_dir=str(tmp_path))
    assert load_initial_policy(arguments, "a", old).served.version.version == version


def test_a_replica_that_replaces_another_asks_the_registry(store: Store, tmp_path: Path) -> None:
    store.register("replaced", stage="Production")
    arguments = Arguments(model_uri="models:/replaced/Production", tracking_uri=store.uri, cache_dir=str(tmp_path))
    resolved = Resolved(resolve("models:/replaced/Production"))
    load_initial_policy(arguments, "a", resolved)
    version = store.register("replaced", stage="Production")
    assert load_initial_policy(arguments, "a", resolved).served.version.version == version


def test_without_the_registry_the_last_known_good_version_is_served_as_degraded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("remembered", stage="Production")
    start(store, "models:/remembered/Production", tmp_path)

    def fail(*_: object) -> None:
        raise RegistryFailed("x", "it is down")

    monkeypatch.setattr(DirectRegistry, "resolve", fail)
    initial = start(store, "models:/remembered/Production", tmp_path)
    app = PolicyApp(initial.served, refresh=initial.refresh)
    health, model = ask(app, "GET", "/health"), ask(app, "GET", "/model").json()
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert (model["degraded"], model["refresh_error"]) == (True, "the model registry at x failed: it is down")
    with pytest.raises(RegistryFailed):
        start(store, "models:/remembered/Staging", tmp_path)


def test_a_replica_starts_although_the_version_in_the_stage_is_damaged(store: Store, tmp_path: Path) -> None:
    store.register("spoilt", stage="Production")
    start(store, "models:/spoilt/Production", tmp_path)
    version = store.register("spoilt", CONTRARY_BUNDLE)
    store.file("spoilt", version, "model.onnx").write_bytes(b"rubbish")
    store.promote("spoilt", version)
    initial = start(store, "models:/spoilt/Production", tmp_path)
    assert (initial.served.version.version, initial.refresh.degraded) == (1, True)
    with pytest.raises(DigestMismatch):
        start(store, "models:/spoilt/Production", tmp_path / "elsewhere")


def test_a_replacement_replica_keeps_the_spaces_that_only_a_new_deployment_changes(
    store: Store, tmp_path: Path
) -> None:
    uri = "models:/succeeded/Production"
    store.register("succeeded", stage="Production")
    start(store, uri, tmp_path, "one")
    store.promote("succeeded", store.register("succeeded", STEERING_BUNDLE))
    successor = start(store, uri, tmp_path, "one")
    assert (successor.served.version.version, successor.refresh.degraded) == (1, True)
    assert str(successor.refresh.error).startswith("its observation space is Box(-10.0, 10.0, (1,), float32), that of")
    assert start(store, uri, tmp_path, "one", allow=True).served.version.version == 2
    assert start(store, uri, tmp_path, "another").served.version.version == 2


def test_the_command_starts_with_the_last_known_good_version_and_a_warning(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register("commanded", stage="Production")
    start(store, "models:/commanded/Production", tmp_path, application="commanded")
    arguments = Arguments(model_uri="models:/commanded/Production", cache_dir=str(tmp_path))
    store.promote("commanded", 1, "Archived", archive=False)
    with pytest.raises(VersionMissing):
        server.check_model(arguments)

    def fail(*_: object) -> None:
        raise TrackingServerUnreachable("http://x", "connection refused")

    monkeypatch.setattr(server.SubprocessRegistry, "resolve", fail)
    checked = server.check_model(arguments)
    assert (checked.version.version, checked.resolved) == (1, None)
    said = capsys.readouterr().err.splitlines()
    assert "Starting with the last known good version, 1. Replicas keep polling the registry." in said


def test_a_replica_starts_with_a_signed_version_only(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other = signer(), signer()
    files = trusted(tmp_path, key), trusted(tmp_path, other)
    store.register("vouched", stage="Production")
    uri = "models:/vouched/Production"

    def start(file: str) -> tuple[int, bool]:
        arguments = Arguments(model_uri=uri, tracking_uri=store.uri, cache_dir=str(tmp_path), trusted_key=(file,))
        initial = load_initial_policy(arguments)
        assert server.check_model(arguments).version == initial.served.version
        return initial.served.version.version, initial.refresh.degraded

    with pytest.raises(SignatureMissing):
        start(files[0])
    sign(Subject.of(resolve(uri)), key)
    assert start(files[0]) == (1, False)
    store.promote("vouched", store.register("vouched"))
    assert start(files[0]) == (1, True), "the last known good version is signed"
    # The last known good version is not signed with the other key.
    arguments = Arguments(model_uri=uri, tracking_uri=store.uri, cache_dir=str(tmp_path), trusted_key=(files[1],))
    with pytest.raises(SignatureMissing, match="version 2"):
        load_initial_policy(arguments)
    monkeypatch.setattr(server, "run_trial", None)
    with pytest.raises(SignatureMissing, match="version 2"):
        server.check_model(arguments)

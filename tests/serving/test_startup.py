from pathlib import Path

import pytest

from serving.app import Arguments
from serving.commands import run as server
from serving.commands.run import ServerOptions
from serving.errors import ServingError
from serving.http.app import PolicyApp
from serving.registry.access import SubprocessRegistry
from serving.registry.errors import DigestMismatch, RegistryFailed, TrackingServerUnreachable, VersionMissing
from serving.registry.registry import fetch, resolve
from serving.startup import Start, started
from tests.serving.policies import CONTRARY_BUNDLE, STEERING_BUNDLE, Store, answer, ask
from tests.workshop import free_port


def start(store: Store, uri: str, cache: Path, deployment: str | None = None, *, allow: bool = False) -> Start:
    arguments = Arguments(model_uri=uri, tracking_uri=store.uri, cache_dir=str(cache), allow_space_change=allow)
    begun = started(arguments, deployment)
    assert isinstance(begun.registry, SubprocessRegistry)
    begun.registry.close()
    return begun


def test_a_replica_loads_what_the_registry_names(store: Store, tmp_path: Path) -> None:
    version = store.register("loading", stage="Staging")
    begun = start(store, "models:/loading/Staging", tmp_path)
    assert (begun.served.version.name, begun.served.version.version) == ("loading", version)
    assert answer(begun.served, b'{"observation": [0, 0, 1, 0]}') == b'{"action":1}'
    assert not begun.refresh.degraded


def test_without_the_registry_the_last_known_good_version_is_served_and_said_to_be(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("remembered", stage="Production")
    start(store, "models:/remembered/Production", tmp_path)

    def fail(*_: object) -> None:
        raise RegistryFailed("x", "it is down")

    monkeypatch.setattr(SubprocessRegistry, "resolve", fail)
    begun = start(store, "models:/remembered/Production", tmp_path)
    app = PolicyApp(begun.served, refresh=begun.refresh)
    health, model = ask(app, "GET", "/health"), ask(app, "GET", "/model").json()
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert (model["degraded"], model["refresh_error"]) == (True, "the model registry at x failed: it is down")
    with pytest.raises(RegistryFailed):
        start(store, "models:/remembered/Staging", tmp_path)


def test_a_corrupt_version_in_the_stage_does_not_keep_a_replica_from_starting(store: Store, tmp_path: Path) -> None:
    store.register("spoilt", stage="Production")
    start(store, "models:/spoilt/Production", tmp_path)
    version = store.register("spoilt", CONTRARY_BUNDLE)
    store.file("spoilt", version, "model.onnx").write_bytes(b"rubbish")
    store.promote("spoilt", version)
    begun = start(store, "models:/spoilt/Production", tmp_path)
    assert (begun.served.version.version, begun.refresh.degraded) == (1, True)
    with pytest.raises(DigestMismatch):
        start(store, "models:/spoilt/Production", tmp_path / "elsewhere")


def test_a_replica_that_succeeds_another_keeps_its_spaces_and_a_new_deployment_takes_the_new(
    store: Store, tmp_path: Path
) -> None:
    uri = "models:/succeeded/Production"
    store.register("succeeded", stage="Production")
    start(store, uri, tmp_path, "one")
    store.promote("succeeded", store.register("succeeded", STEERING_BUNDLE))
    successor = start(store, uri, tmp_path, "one")
    assert (successor.served.version.version, successor.refresh.degraded) == (1, True)
    assert str(successor.refresh.error).startswith("its observation space is Box(-10.0, 10.0, (1,), float32), the one")
    assert start(store, uri, tmp_path, "one", allow=True).served.version.version == 2
    assert start(store, uri, tmp_path, "another").served.version.version == 2


def test_the_command_starts_with_the_last_known_good_version_and_a_warning(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register("commanded", stage="Production")
    start(store, "models:/commanded/Production", tmp_path)
    arguments = Arguments(model_uri="models:/commanded/Production", cache_dir=str(tmp_path))
    options = ServerOptions(port=free_port())
    store.promote("commanded", 1, "Archived", archive=False)
    with pytest.raises(VersionMissing):
        server.check(arguments, options)

    def fail() -> None:
        raise TrackingServerUnreachable("http://x", "connection refused")

    monkeypatch.setattr(server.tracking, "check_tracking_server", fail)
    version, _ = server.check(arguments, options)
    assert version.version == 1
    said = capsys.readouterr().err.splitlines()
    assert "Starting with the last known good version, 1. Replicas keep polling the registry." in said


def test_the_process_beside_a_replica_answers_asks_again_and_ends(store: Store, tmp_path: Path) -> None:
    store.register("beside", stage="Production")
    beside = SubprocessRegistry(store.uri)
    version = beside.poll("models:/beside/Production")
    assert version == resolve("models:/beside/Production")
    assert beside.fetch(version, tmp_path) == fetch(version, tmp_path)
    with pytest.raises(VersionMissing, match="is in stage 'Staging'"):
        beside.poll("models:/beside/Staging")
    process = beside._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(ServingError, match="the subprocess that calls it failed"):
        beside.poll("models:/beside/Production")
    assert beside.poll("models:/beside/Production").version == 1
    beside.close()

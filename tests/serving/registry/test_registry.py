import contextlib
import errno
import logging
import os
import pwd
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from serving.experiments.experiment import Experiment, Step, lease_key
from serving.policy.errors import BundleFileMissing
from serving.registry import registry
from serving.registry.errors import (
    ArtifactsBehindServer,
    CacheUnwritable,
    DatabaseUnreachable,
    DigestMismatch,
    ModelUnknown,
    PackageMissing,
    RegistryFailed,
    VersionMissing,
)
from tests.serving.policies import CARTPOLE_BUNDLE, STEERING_BUNDLE, digest_tags
from tests.serving.store import Store


def test_a_stage_an_alias_a_number_and_latest_resolve_to_a_pinned_version(store: Store) -> None:
    store.register("resolving", stage="Production")
    store.register("resolving", alias="champion")
    store.register("resolving")
    uris = {"Production": 1, "production": 1, "2": 2, "latest": 3}
    assert {which: registry.resolve(f"models:/resolving/{which}").version for which in uris} == uris
    assert registry.resolve("models:/resolving@champion").version == 2


def test_a_version_has_the_digests_and_the_figures_of_its_tags(store: Store) -> None:
    store.register("telling", stage="Production")
    version = registry.resolve("models:/telling/Production")
    assert (version.uri, version.name, version.stage) == ("models:/telling/Production", "telling", "Production")
    assert version.pinned_uri == "models:/telling/1"
    assert version.digests == {tag.removeprefix("sha256."): d for tag, d in digest_tags(CARTPOLE_BUNDLE).items()}
    assert version.evaluation == {"return_mean": 500.0}
    assert version.registry == store.uri


def test_the_error_of_an_empty_stage_says_how_to_promote_a_version(store: Store) -> None:
    store.register("unpromoted")
    store.register("unpromoted", stage="Staging")
    with pytest.raises(VersionMissing) as caught:
        registry.resolve("models:/unpromoted/Production")
    assert str(caught.value) == (
        "No version of 'unpromoted' is in stage 'Production'. Promote one: python -m pipeline promote VERSION "
        "--name unpromoted, or in the MLflow UI. Versions: 2 (Staging), 1 (None)."
    )


def test_the_error_of_an_unknown_model_lists_the_registered_ones(store: Store) -> None:
    store.register("known")
    with pytest.raises(ModelUnknown) as caught:
        registry.resolve("models:/unknown/Production")
    assert "known" in caught.value.registered
    assert str(caught.value).startswith(f"No model 'unknown' is registered at {store.uri} (registered: '")
    assert str(caught.value).endswith("Train one: python -m pipeline train")


@pytest.mark.parametrize(
    ("which", "criterion", "remedy"),
    [
        ("/7", "has the number 7", "Choose an existing one."),
        ("@champion", "has the alias 'champion'", "Set it: {promote} --alias champion, or in the MLflow UI."),
        ("/Staging", "is in stage 'Staging'", "Promote one: {promote} --stage Staging, or in the MLflow UI."),
    ],
)
def test_the_error_of_a_missing_version_has_the_request_and_the_remedy(
    store: Store, which: str, criterion: str, remedy: str
) -> None:
    name = f"lacking{abs(hash(which))}"
    store.register(name)
    with pytest.raises(VersionMissing) as caught:
        registry.resolve(f"models:/{name}{which}")
    remedy = remedy.format(promote=f"python -m pipeline promote VERSION --name {name}")
    assert str(caught.value) == f"No version of '{name}' {criterion}. {remedy} Versions: 1 (None)."


def test_several_versions_in_a_stage_resolve_to_the_highest_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.register("crowded", stage="Production")
    store.register("crowded", stage="Production")
    with caplog.at_level(logging.WARNING):
        assert registry.resolve("models:/crowded/Production").version == 2
    assert (
        "versions 1, 2 of 'crowded' are all in stage 'Production'; MLflow resolves the stage to the highest, 2"
        in caplog.text
    )


def test_a_registry_that_fails_while_a_stage_is_checked_is_an_error_of_the_registry(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> list[Any]:
        raise MlflowException("no answer")

    store.register("checked", stage="Production")
    monkeypatch.setattr(registry, "versions_of", fail)
    with pytest.raises(RegistryFailed, match="failed: no answer"):
        registry.resolve("models:/checked/Production")


def test_a_bundle_is_fetched_and_the_artifact_store_stays_unchanged(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/fetched/{store.register('fetched')}")
    assert registry.fetch(version, tmp_path) == CARTPOLE_BUNDLE
    folder = store.file("fetched", 1, "model.onnx").parent
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "policy.json"]
    (folder / "model.onnx").unlink()
    assert registry.fetch(version, tmp_path) == CARTPOLE_BUNDLE, "the second time it comes from the cache"


def test_a_graph_that_was_changed_in_the_store_is_rejected(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/tampered/{store.register('tampered')}")
    store.file("tampered", 1, "model.onnx").write_bytes(STEERING_BUNDLE.graph)
    with pytest.raises(DigestMismatch) as caught:
        registry.fetch(version, tmp_path)
    assert str(caught.value) == (
        "model.onnx of version 1 of 'tampered' was changed after it was registered: its sha256 is "
        f"{caught.value.found[:12]}..., the registered one is {version.digests['model.onnx'][:12]}..."
    )


def test_a_truncated_bundle_is_rejected(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/truncated/{store.register('truncated')}")
    store.file("truncated", 1, "policy.json").write_bytes(CARTPOLE_BUNDLE.policy[:20])
    with pytest.raises(DigestMismatch, match=r"policy\.json of version 1"):
        registry.fetch(version, tmp_path)


def test_the_error_names_the_file_that_the_store_lacks(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/emptied/{store.register('emptied')}")
    store.file("emptied", 1, "model.onnx").unlink()
    with pytest.raises(BundleFileMissing, match=r"cannot read model\.onnx of models:/emptied/1"):
        registry.fetch(version, tmp_path)


def test_a_full_disk_is_not_taken_for_a_missing_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.resolve(f"models:/large/{store.register('large')}")

    def download(**_: str) -> None:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise MlflowException(f"The following failures occurred while downloading: {full!r}")

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    with pytest.raises(CacheUnwritable, match=r"No space left on device\. Choose another directory with --cache-dir"):
        registry.fetch(version, tmp_path)


def test_artifacts_that_an_mlflow_server_keeps_are_asked_of_the_server(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/proxied/{store.register('proxied')}")
    with contextlib.closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database, database:
        location = "mlflow-artifacts:/0/models/m-1/artifacts"  # as in the database of a server
        changed = "UPDATE model_versions SET source = ?, storage_location = ? WHERE name = 'proxied'"
        database.execute(changed, (location, location))
    with pytest.raises(ArtifactsBehindServer, match="export MLFLOW_TRACKING_URI=http"):
        registry.fetch(version, tmp_path)


def test_the_cache_is_in_the_directory_for_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert registry.default_cache_dir() == Path("/caches/policy-bundles")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert registry.default_cache_dir() == Path("/home/someone/.cache/policy-bundles")
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert registry.default_cache_dir() == Path("/home/someone/.cache/policy-bundles"), "no relative path"


def test_a_user_without_a_home_directory_is_told_to_name_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    told = r"this user has no home directory\. Choose another directory with --cache-dir or XDG_CACHE_HOME"
    with pytest.raises(CacheUnwritable, match=told):
        registry.default_cache_dir()


@pytest.mark.parametrize("name", ["my ppo", "été", "50%", "ppo#1", "what?", "a&b", "it's"])
def test_a_version_of_a_model_of_any_name_is_found_and_fetched(store: Store, tmp_path: Path, name: str) -> None:
    version = registry.resolve(f"models:/{name}/{store.register(name)}")
    assert registry.resolve(f"models:/{name}/latest") == replace(version, uri=f"models:/{name}/latest")
    assert registry.fetch(version, tmp_path) == CARTPOLE_BUNDLE


def test_files_in_s3_need_the_extra_that_the_error_names(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = store.register("elsewhere")
    with contextlib.closing(sqlite3.connect(store.directory / "mlflow.db")) as database, database:
        where = "source = 's3://bucket/0', storage_location = 's3://bucket/0'"
        database.execute(f"UPDATE model_versions SET {where} WHERE name = 'elsewhere'")
    monkeypatch.setitem(sys.modules, "boto3", None)
    message = r"^the artifact store at s3:// needs the module boto3, .* pip install 'cartpole-ppo\[s3\]'$"
    with pytest.raises(PackageMissing, match=message):
        registry.fetch(registry.resolve(f"models:/elsewhere/{number}"), tmp_path)


def test_the_first_poll_of_a_database_that_is_down_fails_at_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would retry for two minutes."""
    assert store
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    monkeypatch.setattr(registry, "_registry_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(registry, "_find", lambda _: pytest.fail("MLflow is called"))
    for _ in range(2):
        with pytest.raises(DatabaseUnreachable, match="file is not a database"):
            registry.poll("models:/polled/Production")


def test_a_version_comes_with_the_challenger_of_its_running_experiment(store: Store) -> None:
    for number in (1, 2):
        store.register("challenged", stage="Production" if number == 1 else None)
    running = Experiment("e1", "salt", 1, 2, (Step(0.0, 0.1),), 2e10)
    client = mlflow.MlflowClient()

    def tag(experiment: Experiment) -> None:
        client.set_model_version_tag("challenged", "1", "experiment.stage.Production", experiment.to_tag())

    tag(running)
    for find in (registry.poll, registry.resolve):
        version = find("models:/challenged/Production")
        assert version.experiment == running
        assert version.challenger is not None
        assert (version.challenger.version, version.challenger.digests) == (2, version.digests)
    assert registry.poll("models:/challenged/1").challenger is None
    tags = registry.poll("models:/challenged/Production").tags
    client.set_model_version_tag("challenged", "1", lease_key("experiment.stage.Production"), "a controller")
    assert registry.poll("models:/challenged/Production").tags == tags, "replicas do not see who controls"
    for ended in (replace(running, decision="stopped"), replace(running, expires_s=1.0)):
        tag(ended)
        version = registry.poll("models:/challenged/Production")
        assert (version.experiment, version.challenger) == (ended, None)


@pytest.mark.parametrize("tag", ["{", Experiment("e1", "salt", 7, 2, (Step(0.0, 0.1),), 2e10).to_tag()])
def test_a_tag_that_is_no_experiment_of_the_version_counts_as_none(store: Store, tag: str) -> None:
    name = f"confused-{len(tag)}"
    store.register(name, stage="Production")
    mlflow.MlflowClient().set_model_version_tag(name, "1", "experiment.stage.Production", tag)
    version = registry.poll(f"models:/{name}/Production")
    assert (version.version, version.experiment, version.challenger) == (1, None, None)


def test_an_experiment_goes_on_without_its_challenger_if_that_is_deleted(store: Store) -> None:
    store.register("orphaned", stage="Production")
    experiment = Experiment("e1", "salt", 1, 2, (Step(0.0, 0.1),), 2e10)
    mlflow.MlflowClient().set_model_version_tag("orphaned", "1", "experiment.stage.Production", experiment.to_tag())
    assert registry.poll("models:/orphaned/Production").challenger is None

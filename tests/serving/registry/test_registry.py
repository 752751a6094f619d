import logging
from pathlib import Path

import pytest

from serving.registry import registry
from serving.registry.errors import (
    BundleFileMissing,
    CacheUnwritable,
    DigestMismatch,
    DigestMissing,
    ModelUnknown,
    VersionMissing,
)
from tests.serving.policies import CARTPOLE_BUNDLE, STEERING_BUNDLE, Store, digest_tags


def test_a_stage_an_alias_a_number_and_latest_resolve_to_a_pinned_version(store: Store) -> None:
    store.register("resolving", stage="Production")
    store.register("resolving", alias="champion")
    store.register("resolving")
    uris = {"Production": 1, "production": 1, "2": 2, "latest": 3}
    assert {which: registry.resolve(f"models:/resolving/{which}").version for which in uris} == uris
    assert registry.resolve("models:/resolving@champion").version == 2


def test_a_version_carries_what_the_registry_says_of_it(store: Store) -> None:
    store.register("telling", stage="Production")
    version = registry.resolve("models:/telling/Production")
    assert (version.uri, version.name, version.stage) == ("models:/telling/Production", "telling", "Production")
    assert version.pinned_uri == "models:/telling/1"
    assert version.digests == {tag.removeprefix("sha256."): d for tag, d in digest_tags(CARTPOLE_BUNDLE).items()}
    assert version.evaluation == {"return_mean": 500.0}
    assert version.registry == store.uri


def test_an_empty_stage_says_how_to_promote_and_what_there_is(store: Store) -> None:
    store.register("unpromoted")
    store.register("unpromoted", stage="Staging")
    with pytest.raises(VersionMissing) as caught:
        registry.resolve("models:/unpromoted/Production")
    assert str(caught.value) == (
        "No version of 'unpromoted' is in stage 'Production'. Promote one: python -m pipeline promote VERSION, "
        "or in the MLflow UI. Versions: 2 (Staging), 1 (None)."
    )


def test_an_unknown_model_says_which_there_are(store: Store) -> None:
    store.register("known")
    with pytest.raises(ModelUnknown) as caught:
        registry.resolve("models:/unknown/Production")
    assert "known" in caught.value.registered
    assert str(caught.value).startswith(f"No model 'unknown' is registered at {store.uri} (registered: '")
    assert str(caught.value).endswith("Train one: python -m pipeline train")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("/7", "has the number 7. Choose one there is. Versions: 1 (None)."),
        ("@champion", "has the alias 'champion'. Set it on one in the MLflow UI. Versions: 1 (None)."),
        (
            "/Staging",
            (
                "is in stage 'Staging'. Promote one: python -m pipeline promote VERSION --stage Staging, or in the "
                "MLflow UI. Versions: 1 (None)."
            ),
        ),
    ],
)
def test_a_missing_version_says_what_was_asked(store: Store, which: str, message: str) -> None:
    name = f"lacking{abs(hash(which))}"
    store.register(name)
    with pytest.raises(VersionMissing) as caught:
        registry.resolve(f"models:/{name}{which}")
    assert str(caught.value) == f"No version of '{name}' {message}"


def test_of_several_versions_in_a_stage_the_highest_is_taken_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.register("crowded", stage="Production")
    store.register("crowded", stage="Production")
    with caplog.at_level(logging.WARNING):
        assert registry.resolve("models:/crowded/Production").version == 2
    assert "versions 1, 2 of 'crowded' all stand in stage 'Production'; MLflow takes the highest, 2" in caplog.text


# --- fetch ----------------------------------------------------------------------------------------------------------


def test_a_bundle_is_fetched_verified_and_kept(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/fetched/{store.register('fetched')}")
    assert registry.fetch(version, tmp_path) == CARTPOLE_BUNDLE
    store.file("fetched", 1, "model.onnx").unlink()
    assert registry.fetch(version, tmp_path) == CARTPOLE_BUNDLE, "the second time it comes from the cache"
    kept = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(kept) == ["model.onnx", "policy.json"]


def test_nothing_is_written_into_the_artifact_store(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/untouched/{store.register('untouched')}")
    registry.fetch(version, tmp_path)
    folder = store.file("untouched", 1, "model.onnx").parent
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "policy.json"]


def test_a_changed_graph_is_refused(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/tampered/{store.register('tampered')}")
    store.file("tampered", 1, "model.onnx").write_bytes(STEERING_BUNDLE.graph)
    with pytest.raises(DigestMismatch) as caught:
        registry.fetch(version, tmp_path)
    assert str(caught.value) == (
        "model.onnx of version 1 of 'tampered' was changed after it was registered: sha256 is "
        f"{caught.value.found[:12]}..., the registry says {version.digests['model.onnx'][:12]}..."
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half-made stays"


def test_a_truncated_bundle_is_refused(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/truncated/{store.register('truncated')}")
    store.file("truncated", 1, "policy.json").write_bytes(CARTPOLE_BUNDLE.policy[:20])
    with pytest.raises(DigestMismatch, match=r"policy\.json of version 1"):
        registry.fetch(version, tmp_path)


def test_a_missing_file_is_named(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/emptied/{store.register('emptied')}")
    store.file("emptied", 1, "model.onnx").unlink()
    with pytest.raises(BundleFileMissing, match=r"cannot read model\.onnx of models:/emptied/1"):
        registry.fetch(version, tmp_path)


def test_a_version_without_digests_is_refused(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/foreign/{store.register('foreign', tags={})}")
    with pytest.raises(DigestMissing, match=r"has no tag 'sha256\.model\.onnx', so its files cannot be verified"):
        registry.fetch(version, tmp_path)


def test_a_damaged_cache_heals_itself(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/healing/{store.register('healing')}")
    registry.fetch(version, tmp_path)
    next(tmp_path.rglob("model.onnx")).write_bytes(b"rubbish")
    assert registry.fetch(version, tmp_path) == CARTPOLE_BUNDLE
    assert next(tmp_path.rglob("model.onnx")).read_bytes() == CARTPOLE_BUNDLE.graph


def test_a_cache_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/homeless/{store.register('homeless')}")
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(CacheUnwritable, match="Choose another with --cache-dir"):
        registry.fetch(version, tmp_path / "file")

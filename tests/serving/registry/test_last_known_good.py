import contextlib
import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.registry import registry
from serving.registry.errors import CacheUnwritable
from serving.registry.last_known_good import LastKnownGood
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, digest_tags
from tests.serving.store import Store

URI = "models:/kept/Production"


def test_a_version_is_recorded_for_its_uri_and_registry(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/recorded/{store.register('recorded')}")
    LastKnownGood(tmp_path, store.uri, URI).save(version)
    assert LastKnownGood(tmp_path, store.uri, URI).load() == version
    assert LastKnownGood(tmp_path, "http://another", URI).load() is None
    assert LastKnownGood(tmp_path, store.uri, "models:/kept/Staging").load() is None


def test_applications_of_one_machine_remember_their_own_version(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.resolve(f"models:/owned/{store.register('owned')}")
    LastKnownGood(tmp_path, store.uri, URI, application="one").save(version)
    assert LastKnownGood(tmp_path, store.uri, URI, application="one").load() == version
    assert LastKnownGood(tmp_path, store.uri, URI, application="another").load() is None
    monkeypatch.setenv("MLFLOW_WORKSPACE", "another team")
    assert LastKnownGood(tmp_path, store.uri, URI, application="one").load() is None


def test_a_damaged_record_is_ignored(store: Store, tmp_path: Path) -> None:
    known = LastKnownGood(tmp_path, store.uri, URI)
    known.save(registry.resolve(f"models:/scratched/{store.register('scratched')}"))
    next((tmp_path / "good").iterdir()).write_text('{"name"')
    assert known.load() is None


def test_a_directory_that_cannot_be_written_is_named_with_the_reason(store: Store, tmp_path: Path) -> None:
    (tmp_path / "good").write_text("a file")
    version = registry.resolve(f"models:/unwritten/{store.register('unwritten')}")
    with pytest.raises(CacheUnwritable) as caught:
        LastKnownGood(tmp_path, store.uri, URI).save(version)
    assert str(caught.value) == (
        f"cannot write the bundle cache {tmp_path}: File exists. Choose another directory with --cache-dir "
        "or XDG_CACHE_HOME"
    )


@contextlib.contextmanager
def small_files(max_bytes: int) -> Iterator[None]:
    """Let writes beyond a size fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_record_and_leaves_no_files(store: Store, tmp_path: Path) -> None:
    """Each restart of a replica tries it: files that stay would fill the disk."""
    version = registry.resolve(f"models:/full/{store.register('full')}")
    known = LastKnownGood(tmp_path, store.uri, URI)
    known.save(version)
    with small_files(10), pytest.raises(CacheUnwritable, match="File too large"):
        known.save(replace(version, version=2))
    (record,) = (tmp_path / "good").iterdir()
    assert known.load() == version
    assert record.stat().st_mode & 0o077 == 0, "it holds the registry's URI, which may have a password"


def test_versions_are_compared_by_their_files_and_not_by_their_number(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/compared/{store.register('compared')}")
    known = LastKnownGood(tmp_path, store.uri, URI)
    assert not known.has_files_of(version)
    known.save(version)
    assert known.has_files_of(replace(version, version=2))
    assert not known.has_files_of(replace(version, tags=digest_tags(CONTRARY_BUNDLE)))
    known.save(replace(version, tags={}))
    assert not known.has_files_of(replace(version, tags={})), "without digests nothing is known of the files"


def test_only_the_same_deployment_recognizes_its_record(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/deployed/{store.register('deployed')}")
    one, none = LastKnownGood(tmp_path, store.uri, URI, "one"), LastKnownGood(tmp_path, store.uri, URI)
    assert not one.is_from_this_deployment()
    one.save(version)
    assert one.is_from_this_deployment()
    assert not LastKnownGood(tmp_path, store.uri, URI, "another").is_from_this_deployment()
    none.save(version)
    assert not none.is_from_this_deployment()


def test_pruning_keeps_the_bundles_of_records(store: Store, tmp_path: Path) -> None:
    numbers = [store.register("pruned", bundle) for bundle in (CARTPOLE_BUNDLE, CONTRARY_BUNDLE)]
    versions = [registry.resolve(f"models:/pruned/{number}") for number in numbers]
    for version in versions:
        registry.fetch(version, tmp_path)
    known = LastKnownGood(tmp_path, store.uri, URI)
    known.save(versions[0])
    known.prune_cache(0)
    assert [path.name.split("-")[0] for path in tmp_path.glob("*/*/*-*")] == ["1"]


def test_the_versions_that_the_recorded_one_replaced_are_recorded_too(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/replacing/{store.register('replacing')}")
    known = LastKnownGood(tmp_path, store.uri, URI)
    assert known.previous() == []
    for number, previous in [(3, []), (3, []), (4, [3]), (6, [4, 3]), (7, [6, 4]), (6, [4]), (5, [4]), (8, [5, 4])]:
        known.save(replace(version, version=number))
        assert [each.version for each in LastKnownGood(tmp_path, store.uri, URI).previous()] == previous


def test_a_record_of_an_earlier_release_names_no_previous_versions(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/earlier/{store.register('earlier')}")
    known = LastKnownGood(tmp_path, store.uri, URI)
    known.save(version)
    (record,) = (tmp_path / "good").iterdir()
    record.write_text(json.dumps({"deployment": None, "version": version.to_json()}))
    assert (known.load(), known.previous()) == (version, [])


def test_pruning_keeps_the_bundles_of_previous_versions(store: Store, tmp_path: Path) -> None:
    numbers = [store.register("before", bundle) for bundle in (CARTPOLE_BUNDLE, CONTRARY_BUNDLE)]
    known = LastKnownGood(tmp_path, store.uri, URI)
    for number in numbers:
        version = registry.resolve(f"models:/before/{number}")
        registry.fetch(version, tmp_path)
        known.save(version)
    known.prune_cache(0)
    assert sorted(path.name.split("-")[0] for path in tmp_path.glob("*/*/*-*")) == ["1", "2"]

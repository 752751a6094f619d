import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from serving.policy.bundle import Bundle
from serving.policy.errors import BundleFileMissing
from serving.registry import cache
from serving.registry.cache import BundleCache
from serving.registry.errors import CacheUnwritable, DigestMismatch, DigestMissing
from serving.registry.model_version import ModelVersion
from serving.registry.node.file_lock import FileLock
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, digest_tags


def _raise(error: Exception) -> NoReturn:
    raise error


def version(number: int, bundle: Bundle = CARTPOLE_BUNDLE) -> ModelVersion:
    uri = f"models:/cached/{number}"
    return ModelVersion(uri, "cached", number, None, "None", digest_tags(bundle), "http://registry")


class Downloads:
    """Writes the files of one bundle and counts how often."""

    def __init__(self, bundle: Bundle = CARTPOLE_BUNDLE) -> None:
        self.bundle, self.count = bundle, 0

    def __call__(self, _version: ModelVersion, directory: Path) -> None:
        self.count += 1
        (directory / "model.onnx").write_bytes(self.bundle.graph)
        (directory / "policy.json").write_bytes(self.bundle.policy)


def test_a_bundle_is_downloaded_once(tmp_path: Path) -> None:
    bundles, download = BundleCache(tmp_path), Downloads()
    assert [bundles.bundle(version(1), download) for _ in range(2)] == [CARTPOLE_BUNDLE] * 2
    assert download.count == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["model.onnx", "policy.json"]


def test_another_bundle_under_the_same_number_is_downloaded(tmp_path: Path) -> None:
    bundles = BundleCache(tmp_path)
    bundles.bundle(version(1), Downloads())
    assert bundles.bundle(version(1, CONTRARY_BUNDLE), Downloads(CONTRARY_BUNDLE)) == CONTRARY_BUNDLE
    assert len(list(tmp_path.glob("*/cached/1-*"))) == 2


def test_a_damaged_bundle_is_downloaded_again(tmp_path: Path) -> None:
    bundles, download = BundleCache(tmp_path), Downloads()
    bundles.bundle(version(1), download)
    graph = next(tmp_path.rglob("model.onnx"))
    graph.write_bytes(b"rubbish")
    assert bundles.bundle(version(1), download) == CARTPOLE_BUNDLE
    assert (download.count, graph.read_bytes()) == (2, CARTPOLE_BUNDLE.graph)


def test_a_bundle_that_the_disk_cannot_read_is_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles, download = BundleCache(tmp_path), Downloads()
    bundles.bundle(version(1), download)
    read, failures = Path.read_bytes, [OSError(errno.EIO, os.strerror(errno.EIO))] * 2  # without a file name
    monkeypatch.setattr(Path, "read_bytes", lambda path: _raise(failures.pop()) if failures else read(path))
    assert bundles.bundle(version(1), download) == CARTPOLE_BUNDLE
    assert download.count == 2


def test_a_rejected_download_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match=r"model\.onnx of version 1 of 'cached' was changed"):
        BundleCache(tmp_path).bundle(version(1), Downloads(CONTRARY_BUNDLE))
    with pytest.raises(BundleFileMissing, match=r"cannot read model\.onnx"):
        BundleCache(tmp_path).bundle(version(1), lambda _version, _directory: None)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_version_without_digests_is_not_downloaded(tmp_path: Path) -> None:
    download = Downloads()
    foreign = ModelVersion("models:/cached/1", "cached", 1, None, "None", {}, "http://registry")
    with pytest.raises(DigestMissing, match=r"has no tag 'sha256\.model\.onnx', so its files cannot be verified"):
        BundleCache(tmp_path).bundle(foreign, download)
    assert download.count == 0


def test_an_unwritable_cache_raises_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(
        CacheUnwritable, match=r": (Not a directory|File exists)\. Choose another directory with --cache-dir"
    ):
        BundleCache(tmp_path / "file").bundle(version(1), Downloads())


def test_pruning_deletes_the_least_recently_used_bundles(tmp_path: Path) -> None:
    bundles, versions = BundleCache(tmp_path), [version(number) for number in (1, 2, 3)]
    for age, each in enumerate(versions):
        bundles.bundle(each, Downloads())
        os.utime(bundles.path(each), (1000 + age, 1000 + age))
    bundles.bundle(versions[0], Downloads())  # version 2 is now the one that was not used for longest
    size = len(CARTPOLE_BUNDLE.graph) + len(CARTPOLE_BUNDLE.policy)
    bundles.prune(2 * size + 100, keep=[])
    assert [bundles.path(each).exists() for each in versions] == [True, False, True]
    bundles.prune(0, keep=[versions[2]])
    assert [bundles.path(each).exists() for each in versions] == [False, False, True]


def test_pruning_deletes_the_unfinished_downloads_of_killed_processes(tmp_path: Path) -> None:
    abandoned, recent = tmp_path / "r/m/.fetching-a", tmp_path / "r/m/.fetching-b"
    for directory in (abandoned, recent):
        directory.mkdir(parents=True)
    os.utime(abandoned, (1000, 1000))
    BundleCache(tmp_path).prune(0, keep=[])
    assert (abandoned.exists(), recent.exists()) == (False, True)


def test_pruning_spares_the_downloads_in_progress_of_other_processes(tmp_path: Path) -> None:
    bundles = BundleCache(tmp_path)

    def download(version: ModelVersion, directory: Path) -> None:
        Downloads()(version, directory)
        os.utime(directory, (1000, 1000))  # an hour ago it created its file, into which it still writes
        bundles.prune(0, keep=[])

    assert bundles.bundle(version(1), download) == CARTPOLE_BUNDLE


def test_pruning_deletes_nothing_but_bundles(tmp_path: Path) -> None:
    """A user may name a directory with other files as the cache."""
    others = [tmp_path / "projects/mine/my-program", tmp_path / "2026/11/2026-11", tmp_path / "0123456789ab/m/1-draft"]
    for directory in others:
        directory.mkdir(parents=True)
        (directory / "file").write_text("unique")
    bundles = BundleCache(tmp_path)
    bundles.bundle(version(1), Downloads())
    bundles.prune(0, keep=[])
    assert not bundles.path(version(1)).exists()
    assert all((directory / "file").exists() for directory in others)


def test_processes_that_want_one_bundle_at_the_same_time_download_it_once(tmp_path: Path) -> None:
    """Here they are threads, each with a cache of its own."""
    download, barrier = Downloads(), threading.Barrier(6)

    def slowly(version: ModelVersion, directory: Path) -> None:
        time.sleep(0.2)  # so that the others wait
        download(version, directory)

    def fetch(_: int) -> Bundle:
        barrier.wait(30)
        return BundleCache(tmp_path).bundle(version(1), slowly)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(fetch, range(6))) == [CARTPOLE_BUNDLE] * 6
    assert download.count == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["model.onnx", "policy.json"]


def test_a_process_that_hangs_in_its_download_does_not_hold_up_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "DOWNLOAD_S", 0.1)
    bundles, download = BundleCache(tmp_path), Downloads()
    path = bundles.path(version(1))
    hanging = FileLock(path.with_name(f".{path.name}.lock"))
    assert hanging.acquire()
    assert bundles.bundle(version(1), download) == CARTPOLE_BUNDLE
    hanging.release()


def test_processes_that_publish_one_bundle_at_the_same_time_all_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here they are threads. A second process meets the files of the first; with damaged ones, all replace them.

    It happens where the file system has no locks.
    """
    monkeypatch.setattr(FileLock, "acquire", lambda _: _raise(OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))))
    bundles, number = BundleCache(tmp_path), 6
    barrier = threading.Barrier(number)

    def download(version: ModelVersion, directory: Path) -> None:
        Downloads()(version, directory)
        barrier.wait(30)

    with ThreadPoolExecutor(number) as threads:
        for round_number in range(40):
            wanted = version(round_number)
            path = bundles.path(wanted)
            if round_number % 2:
                path.mkdir(parents=True)
                (path / "model.onnx").write_bytes(b"rubbish")
            found = list(threads.map(bundles.bundle, [wanted] * number, [download] * number))
            assert found == [CARTPOLE_BUNDLE] * number
            assert Bundle.read(path) == CARTPOLE_BUNDLE
    assert not list(tmp_path.glob("*/*/.fetching-*"))


def test_a_file_in_the_place_of_a_bundle_is_replaced(tmp_path: Path) -> None:
    bundles = BundleCache(tmp_path)
    path = bundles.path(version(1))
    path.parent.mkdir(parents=True)
    path.write_text("no directory")
    assert bundles.bundle(version(1), Downloads()) == CARTPOLE_BUNDLE
    assert Bundle.read(path) == CARTPOLE_BUNDLE

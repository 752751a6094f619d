"""The cache of bundles on this machine's disk.

A bundle is verified each time it is read. It appears in the cache in one step, so processes can share the cache. A lock
spares them the download that another process has begun; without it, as on some network file systems, all download.
"""

import errno
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from serving.policy.bundle import BUNDLE_FILES, Bundle
from serving.policy.errors import BundleError, BundleFileMissing
from serving.registry.errors import CacheUnwritable, DigestMismatch, DigestMissing
from serving.registry.model_version import ModelVersion
from serving.registry.node.file_lock import FileLock

ABANDONED_AFTER_S = 3600.0
"""Downloads that are older than this belong to processes that were killed."""

DOWNLOAD_S = 120.0
"""The time for which a process waits for another one that downloads the same bundle."""

_BUNDLE = re.compile(r"[0-9a-f]{12}/[^/]+/\d+-[0-9a-f]{16}")
"""The path of a bundle below the cache's directory, which may hold other files: a user can name any directory."""

Download = Callable[[ModelVersion, Path], None]
"""Writes a version's files into a directory."""


class BundleCache:
    """Keeps the bundle of each version in `<directory>/<registry>/<name>/<number>-<digest>/`.

    The path has the digest because a version can be deleted and another one registered under its number.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def bundle(self, version: ModelVersion, download: Download) -> Bundle:
        """Return the verified bundle; `download` it if it is not in the cache, or damaged there.

        Each file is read once, so the returned bytes are the verified ones.

        Raises:
            DigestMissing, DigestMismatch, CacheUnwritable, and the exceptions of `download`.
        """
        for file in BUNDLE_FILES:
            if file not in version.digests:
                raise DigestMissing(file, version.name, version.version)
        path = self.path(version)
        try:
            bundle = _read_verified(path, version)
        except (BundleFileMissing, DigestMismatch):
            return self._refill_once(path, version, download)
        with suppress(OSError):
            os.utime(path)  # `prune` keeps the bundles that were used last
        return bundle

    def path(self, version: ModelVersion) -> Path:
        """Return the directory of the version's bundle. The version must have the digests of all files."""
        registry = hashlib.sha256(version.registry.encode()).hexdigest()[:12]
        digest = hashlib.sha256("".join(version.digests[file] for file in BUNDLE_FILES).encode()).hexdigest()[:16]
        return self._directory / registry / quote(version.name, safe="") / f"{version.version}-{digest}"

    def prune(self, max_bytes: int, keep: Collection[ModelVersion]) -> None:
        """Delete the least recently used bundles until at most `max_bytes` are left, but none of `keep`.

        Downloads that processes left unfinished are deleted too.
        """
        for abandoned in self._directory.glob("*/*/.fetching-*"):
            if time.time() - max(map(_last_use, [abandoned, *abandoned.rglob("*")])) > ABANDONED_AFTER_S:
                shutil.rmtree(abandoned, ignore_errors=True)
        kept = {self.path(version) for version in keep}
        found = (path for path in self._directory.glob("*/*/*-*") if self._is_bundle(path))
        paths = sorted(found, key=_last_use, reverse=True)
        total = sum(_size(path) for path in paths if path in kept)
        for path in paths:
            if path not in kept:
                total += _size(path)
                if total > max_bytes:
                    shutil.rmtree(path, ignore_errors=True)

    def _is_bundle(self, path: Path) -> bool:
        return _BUNDLE.fullmatch(str(path.relative_to(self._directory))) is not None and path.is_dir()

    def _refill_once(self, path: Path, version: ModelVersion, download: Download) -> Bundle:
        with FileLock(path.with_name(f".{path.name}.lock")).held(DOWNLOAD_S):
            try:
                return _read_verified(path, version)
            except (BundleFileMissing, DigestMismatch):
                return self._refill(path, version, download)

    def _refill(self, path: Path, version: ModelVersion, download: Download) -> Bundle:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=path.parent) as temporary:
                download(version, Path(temporary))
                bundle = _read_verified(Path(temporary), version)
                _publish(Path(temporary), path, version)
        except OSError as error:
            raise CacheUnwritable(str(self._directory), error.strerror or str(error)) from error
        return bundle


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has deleted it
        return 0.0


def _size(path: Path) -> int:
    with suppress(OSError):
        return sum(file.stat().st_size for file in path.iterdir())
    return 0


def _publish(temporary: Path, path: Path, version: ModelVersion) -> None:
    """Move the downloaded files to `path` in one step, unless another process has put them there meanwhile.

    Several processes may publish the same bundle, so damaged files at `path` are moved away in one step, too.
    """
    complete = temporary / "complete"
    complete.mkdir()
    for file in BUNDLE_FILES:
        (temporary / file).rename(complete / file)
    for attempt in itertools.count():
        try:
            complete.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return
        if _is_intact(path, version):
            return
        with suppress(FileNotFoundError):  # another process has moved them away
            path.rename(temporary / f"damaged-{attempt}")


def _is_intact(path: Path, version: ModelVersion) -> bool:
    try:
        _read_verified(path, version)
    except BundleError:
        return False
    return True


def _read_verified(directory: Path, version: ModelVersion) -> Bundle:
    bundle = Bundle.read(directory)
    for file, found in bundle.digests.items():
        expected = version.digests[file]
        if found != expected:
            raise DigestMismatch(file, version.name, version.version, expected, found)
    return bundle

"""The bundles on this machine's disk: verified whenever they are read, complete whenever they are visible."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from serving.policy.policy import BUNDLE_FILES, Bundle
from serving.registry.errors import BundleFileMissing, CacheUnwritable, DigestMismatch, DigestMissing

ABANDONED_AFTER_S = 3600.0


class BundleCache:
    """One version's place in the cache: `<directory>/<registry>/<key>-<digest>/`.

    The digest is part of the place: a version deleted and registered again under its number is another.
    """

    def __init__(self, directory: Path, registry: str, key: str) -> None:
        self._root = directory / hashlib.sha256(registry.encode()).hexdigest()[:12]
        self._key = key

    def bundle(self, name: str, version: int, digests: Mapping[str, str], download: Callable[[Path], None]) -> Bundle:
        """Return the verified bundle; `download` puts its files into a directory when they aren't here.

        Each file is read once: the bytes that were verified are the bytes returned.

        Raises:
            DigestMissing, DigestMismatch, CacheUnwritable, and what `download` raises.
        """
        for file in BUNDLE_FILES:
            if file not in digests:
                raise DigestMissing(file, name, version)
        place = self.place(digests)
        try:
            bundle = _read_verified(place, name, version, digests)
            with suppress(OSError):
                os.utime(place)  # the last use, for `prune`
            return bundle  # noqa: TRY300 - what follows the errors is the other way
        except (BundleFileMissing, DigestMismatch):
            pass  # not here, or damaged on this disk: the store's copy decides
        return self._refill(place, name, version, digests, download)

    def place(self, digests: Mapping[str, str]) -> Path:
        """Return the directory of the bundle with these digests."""
        joined = "".join(digests[file] for file in BUNDLE_FILES)
        return self._root / f"{self._key}-{hashlib.sha256(joined.encode()).hexdigest()[:16]}"

    def _refill(
        self,
        place: Path,
        name: str,
        version: int,
        digests: Mapping[str, str],
        download: Callable[[Path], None],
    ) -> Bundle:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=place.parent) as temporary:
                download(Path(temporary))
                bundle = _read_verified(Path(temporary), name, version, digests)
                _publish(Path(temporary), place)
        except OSError as error:
            raise CacheUnwritable(str(self._root.parent), error.strerror or str(error)) from error
        return bundle


def prune(directory: Path, max_bytes: int, keep: Collection[Path]) -> None:
    """Delete the bundles used longest ago, until `max_bytes` are left or nothing but `keep`.

    What a process that was killed has left half-made goes too.
    """
    for abandoned in directory.glob("*/*/.fetching-*"):
        if time.time() - _last_use(abandoned) > ABANDONED_AFTER_S:
            shutil.rmtree(abandoned, ignore_errors=True)
    places = sorted((place for place in directory.glob("*/*/*-*") if place.is_dir()), key=_last_use, reverse=True)
    held = sum(_size(place) for place in places if place in keep)
    for place in places:
        if place not in keep:
            held += _size(place)
            if held > max_bytes:
                shutil.rmtree(place, ignore_errors=True)


def _last_use(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:  # another process was quicker
        return 0.0


def _size(place: Path) -> int:
    with suppress(OSError):
        return sum(file.stat().st_size for file in place.iterdir())
    return 0


def _publish(temporary: Path, place: Path) -> None:
    """Move the files into place in one step; another process that was quicker has put the same there."""
    complete = temporary / "complete"
    complete.mkdir()
    for file in BUNDLE_FILES:
        (temporary / file).rename(complete / file)
    try:
        complete.rename(place)
    except OSError:
        # The place is taken: by the same files, unless they were damaged.
        shutil.rmtree(place, ignore_errors=True)
        complete.rename(place)


def _read_verified(directory: Path, name: str, version: int, digests: Mapping[str, str]) -> Bundle:
    bundle = Bundle.read(directory)
    for file, content in zip(BUNDLE_FILES, (bundle.graph, bundle.policy), strict=True):
        found = hashlib.sha256(content).hexdigest()
        if found != digests[file]:
            raise DigestMismatch(file, name, version, digests[file], found)
    return bundle

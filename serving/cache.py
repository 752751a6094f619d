"""The bundles on this machine's disk: verified whenever they are read, complete whenever they are visible."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from serving.errors import BundleFileMissing, CacheUnwritable, DigestMismatch, DigestMissing
from serving.policy import BUNDLE_FILES, Bundle


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
        place = self._place(digests)
        try:
            return _read_verified(place, name, version, digests)
        except (BundleFileMissing, DigestMismatch):
            pass  # not here, or damaged on this disk: the store's copy decides
        return self._refill(place, name, version, digests, download)

    def _place(self, digests: Mapping[str, str]) -> Path:
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

"""The last known good version of each model URI, as this machine remembers it.

A record stands beside the bundles: `<cache>/good/<registry and URI, hashed>.json`. It holds what the registry said of
the version, digests included, so that its bundle is verified as ever when the registry is silent, and which deployment
served it.
"""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from serving.registry.cache import BundleCache, prune
from serving.registry.errors import CacheUnwritable
from serving.registry.registry import ModelVersion, cache_key


class LastKnownGood:
    """Remembers the version that `model_uri` of `registry` was last served with here, and by which deployment."""

    def __init__(self, directory: Path, registry: str, model_uri: str, deployment: str | None = None) -> None:
        self._directory, self._deployment = directory, deployment
        hashed = hashlib.sha256(f"{registry}\n{model_uri}".encode()).hexdigest()[:24]
        self._record = directory / "good" / f"{hashed}.json"

    def remember(self, version: ModelVersion) -> None:
        """Write the record, whole or not at all. Raises CacheUnwritable."""
        try:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._record.parent, delete=False) as file:
                json.dump({"deployment": self._deployment, "version": asdict(version)}, file)
            os.replace(file.name, self._record)  # noqa: PTH105 - file.name is no Path
        except OSError as error:
            raise CacheUnwritable(str(self._directory), error.strerror or str(error)) from error

    def recall(self) -> ModelVersion | None:
        """Return the version, None where there was none, or its record cannot be read."""
        return _read(self._record)

    def vouches_for(self, version: ModelVersion) -> bool:
        """Whether the record holds these very files: they have been tried on this machine."""
        known = self.recall()
        return known is not None and bool(known.digests) and known.digests == version.digests

    def is_own(self) -> bool:
        """Whether this deployment wrote the record: one of its replicas has served that version here."""
        if self._deployment is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                return bool(json.loads(self._record.read_text())["deployment"] == self._deployment)
        return False

    def bound(self, max_bytes: int) -> None:
        """Bound the cache, but for the bundles that records name: each is served, or would be after a restart."""
        versions = [_read(record) for record in self._record.parent.glob("*.json")]
        with suppress(OSError):
            prune(self._directory, max_bytes, {_place(self._directory, version) for version in versions if version})


def _place(directory: Path, version: ModelVersion) -> Path:
    return BundleCache(directory, version.registry, cache_key(version)).place(version.digests)


def _read(record: Path) -> ModelVersion | None:
    try:
        return ModelVersion(**json.loads(record.read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

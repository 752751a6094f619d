"""Records which version this machine last served for an application, for times when the registry is down.

The record is the file `<cache>/good/<scope>.json`. It holds the version with its digests, so that
its bundle is verified without the registry, and the deployment that served it.
"""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from serving.registry.cache import BundleCache
from serving.registry.errors import CacheUnwritable
from serving.registry.model_version import ModelVersion
from serving.registry.node.scope import scope


class LastKnownGood:
    """The version that this machine last served for `model_uri` of the registry at the URI `registry`.

    Each application has a record of its own, by its name. All replicas of a deployment share the id `deployment`. Both
    are None outside of Serve. `directory` is that of the bundle cache.
    """

    def __init__(
        self,
        directory: Path,
        registry: str,
        model_uri: str,
        deployment: str | None = None,
        *,
        application: str | None = None,
    ) -> None:
        self._directory, self._deployment = directory, deployment
        self._record = directory / "good" / f"{scope(registry, model_uri, application)}.json"

    def save(self, version: ModelVersion) -> None:
        """Record the version, atomically. Raises CacheUnwritable."""
        try:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._record.parent) as temporary:
                file = Path(temporary, self._record.name)
                file.touch(mode=0o600)  # the registry's URI may hold a password
                file.write_text(json.dumps({"deployment": self._deployment, "version": version.to_json()}))
                file.replace(self._record)
        except OSError as error:
            raise CacheUnwritable(str(self._directory), error.strerror or str(error)) from error

    def load(self) -> ModelVersion | None:
        """Return the recorded version, None if there is no readable record."""
        return _read(self._record)[0]

    def has_files_of(self, version: ModelVersion) -> bool:
        """Return whether the recorded version has the digests of `version`, so that it passed its trial here."""
        known = self.load()
        return known is not None and bool(known.digests) and known.digests == version.digests

    def is_from_this_deployment(self) -> bool:
        """Return whether a replica of this deployment wrote the record."""
        return self._deployment is not None and _read(self._record)[1] == self._deployment

    def prune_cache(self, max_bytes: int) -> None:
        """Bound the size of the bundle cache, but keep the bundles of all records: a restart may need them."""
        versions = [_read(record)[0] for record in self._record.parent.glob("*.json")]
        challengers = [version.challenger for version in versions if version]
        with suppress(OSError):
            BundleCache(self._directory).prune(max_bytes, [version for version in versions + challengers if version])


def _read(record: Path) -> tuple[ModelVersion | None, str | None]:
    """Return the version and the deployment of a record, None for both if it is not readable."""
    try:
        content = json.loads(record.read_text())
        return ModelVersion.from_json(content["version"]), content["deployment"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None

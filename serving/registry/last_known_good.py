"""Records which version this machine last served for an application, for times when the registry is down.

The record is the file `<cache>/good/<scope>.json`. It holds the version with its digests, so that
its bundle is verified without the registry, the deployment that served it, and the versions that it replaced.
"""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from serving.registry.cache import BundleCache
from serving.registry.errors import CacheUnwritable
from serving.registry.model_version import ModelVersion
from serving.registry.node.scope import scope

MAX_PREVIOUS = 2
"""The most replaced versions that a record names. Their bundles stay in the cache."""


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
        self.scope = scope(registry, model_uri, application)
        """Names the files of the application."""
        self._record = directory / "good" / f"{self.scope}.json"

    def save(self, version: ModelVersion) -> None:
        """Record the version, atomically, and before it those with lower numbers that it replaced.

        Raises CacheUnwritable.
        """
        last, _, replaced = _read(self._record)
        before = {each.version: each for each in (*reversed(replaced), *filter(None, [last]))}
        previous = [before[number] for number in sorted(before, reverse=True) if number < version.version]
        content = {
            "deployment": self._deployment,
            "version": version.to_json(),
            "previous": [each.to_json() for each in previous[:MAX_PREVIOUS]],
        }
        try:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._record.parent) as temporary:
                file = Path(temporary, self._record.name)
                file.touch(mode=0o600)  # the registry's URI may hold a password
                file.write_text(json.dumps(content))
                file.replace(self._record)
        except OSError as error:
            raise CacheUnwritable(str(self._directory), error.strerror or str(error)) from error

    def load(self) -> ModelVersion | None:
        """Return the recorded version, None if there is no readable record."""
        return _read(self._record)[0]

    def previous(self) -> list[ModelVersion]:
        """Return the versions that the recorded one replaced, the last one first; none without a readable record."""
        return _read(self._record)[2]

    def has_files_of(self, version: ModelVersion) -> bool:
        """Return whether the recorded version has the digests of `version`, so that it passed its trial here."""
        known = self.load()
        return known is not None and bool(known.digests) and known.digests == version.digests

    def is_from_this_deployment(self) -> bool:
        """Return whether a replica of this deployment wrote the record."""
        return self._deployment is not None and _read(self._record)[1] == self._deployment

    def prune_cache(self, max_bytes: int) -> None:
        """Bound the size of the bundle cache, but keep the bundles of all records: a restart may need them."""
        records = [_read(record) for record in self._record.parent.glob("*.json")]
        versions = [version for last, _, previous in records for version in (last, *previous)]
        challengers = [version.challenger for version in versions if version]
        with suppress(OSError):
            BundleCache(self._directory).prune(max_bytes, [version for version in versions + challengers if version])


def _read(record: Path) -> tuple[ModelVersion | None, str | None, list[ModelVersion]]:
    """Return the version and the deployment of a record, None if it is not readable, and the previous versions."""
    try:
        content = json.loads(record.read_text())
        previous = [ModelVersion.from_json(each) for each in content.get("previous", [])]  # earlier releases wrote none
        return ModelVersion.from_json(content["version"]), content["deployment"], previous
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None, []

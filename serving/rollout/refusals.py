"""Records which versions failed in service, so that no replica of this machine serves them again.

    a replica: add(version, code, reason)  ->  <cache>/refused/<scope>.json  ->  of(version): all replicas of the node

A refusal holds for a version's number and files. A person lifts it by the tag LIFTED of the version; its other tags,
which commands set as well, change nothing.
"""

import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from serving.registry.model_version import ModelVersion
from serving.registry.node.file_lock import FileLock
from serving.replica.refresh_state import RejectedVersion, now
from serving.rollout.errors import VersionRefused

logger = logging.getLogger(__name__)

FORMAT = 1

LIFTED = "refusal.lifted"
"""The tag with which a person lifts the refusal of a version. Each new value lifts it once; nothing else sets it."""

MAX_KEPT = 64
"""The most refusals that are kept, the last ones."""
LOCK_S = 1.0


def key_of(version: ModelVersion) -> str:
    """Return what identifies a version with its files, and with the value of its tag LIFTED."""
    content = [version.name, version.version, version.digests, version.tags.get(LIFTED)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Refusal:
    """A version that failed in service."""

    key: str
    version: int
    code: str
    """The code of its fault: `inference_timeout`, `output_not_finite`, `policy_failed` or `crashed`."""
    reason: str
    at: str = field(default_factory=now)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return the refusal that `asdict` described. Raises TypeError and ValueError for other content."""
        refusal = cls(**content)
        if type(refusal.version) is not int or not all(isinstance(text, str) for text in refusal.texts):
            raise ValueError("a refusal consists of a number and texts")
        return refusal

    @property
    def texts(self) -> tuple[str, ...]:
        """The members that are texts."""
        return self.key, self.code, self.reason, self.at

    def describe(self, serving: int) -> str:
        """Return what it means while the version of that number answers."""
        consequence = f"version {serving} answers"
        if serving == self.version:
            consequence = "it stays in service, as no version that it replaced can be served"
        remedy = f"another version, or a new value of its tag {LIFTED}, ends this"
        return f"version {self.version} failed in service: {self.reason}; {consequence}; {remedy}"

    @property
    def rejected(self) -> RejectedVersion:
        """The refusal as `/model` shows it."""
        return RejectedVersion(self.version, self.code, self.reason, self.at)


class Refusals:
    """The refused versions of an application, which all replicas of a node share. Threads may share an object.

    Reading them takes microseconds while nothing changes. If the directory cannot be written, a refusal holds in this
    process only.
    """

    def __init__(self, directory: Path, scope: str) -> None:
        """`directory` is that of the bundle cache, `scope` names the application's files."""
        self._path = directory / "refused" / f"{scope}.json"
        self._lock = threading.RLock()
        self._own: dict[str, Refusal] = {}
        self._read: dict[str, Refusal] = {}
        self._signature: tuple[int, int] | None = None

    def add(self, version: ModelVersion, code: str, reason: str) -> Refusal:
        """Refuse a version, and return the refusal; the first one, if it is refused already."""
        if (known := self.of(version)) is not None:
            return known
        refusal = Refusal(key_of(version), version.version, code, reason)
        self.merge([refusal])
        return refusal

    def of(self, version: ModelVersion) -> Refusal | None:
        """Return why a version is refused, None if it is not."""
        with self._lock:
            self._reload()
            if not self._own and not self._read:
                return None
            key = key_of(version)
            return self._read.get(key) or self._own.get(key)

    def check(self, version: ModelVersion) -> None:
        """Raise VersionRefused if a version is refused."""
        if (refusal := self.of(version)) is not None:
            raise VersionRefused(version.version, refusal.reason)

    def all(self) -> list[Refusal]:
        """Return all refusals, the oldest first."""
        with self._lock:
            self._reload()
            return list({**self._own, **self._read}.values())

    def merge(self, refusals: Iterable[Refusal]) -> None:
        """Add the refusals that are not known yet, those of another node for example."""
        with self._lock:
            self._reload()
            new = {each.key: each for each in refusals if each.key not in self._read}
            if not new:
                return
            self._own |= new
            try:
                with FileLock(self._path.with_suffix(".lock")).held(LOCK_S):
                    self._reload()
                    self._write({**self._read, **{key: new[key] for key in new if key not in self._read}})
            except OSError as error:
                logger.warning("refused versions cannot be written to %s: %s", self._path, error.strerror or error)

    def _reload(self) -> None:
        """Read the file if it was replaced."""
        try:
            status = self._path.stat()
        except OSError:
            return  # without a file, what was read before still holds
        signature = status.st_mtime_ns, status.st_ino
        if signature != self._signature:
            self._signature = signature
            self._read = _read(self._path)

    def _write(self, refusals: dict[str, Refusal]) -> None:
        """Replace the file. Raises OSError."""
        kept = list(refusals.values())[-MAX_KEPT:]
        content = {"format": FORMAT, "refusals": [asdict(each) for each in kept]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._path.parent) as temporary:
            file = Path(temporary, self._path.name)
            file.touch(mode=0o600)
            file.write_text(json.dumps(content))
            file.replace(self._path)
        self._reload()


def _read(path: Path) -> dict[str, Refusal]:
    """Return the refusals of a file by their key, none if it is not readable."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            return {}
        return {each["key"]: Refusal.from_json(each) for each in content["refusals"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

"""The outcome of the last poll, in the file `<cache>/wanted/<scope>.json`, which all replicas of a node read."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from serving.errors import ServingError, redacted
from serving.registry import errors
from serving.registry.errors import PollFailed, RegistryError
from serving.registry.model_version import ModelVersion

FORMAT = 1

RECENT_S = 5.0
"""A replica that starts relies on a version which the registry returned to another one that recently."""

Signature = tuple[int, int] | None
"""Changes whenever the file is replaced; None if there is no file."""


@dataclass(frozen=True)
class Outcome:
    """What a poll returned or raised: a version, or else an error."""

    version: ModelVersion | None
    error: ServingError | None = None
    at: float = field(default_factory=time.time)
    """When the poll ended, in seconds since 1970."""

    @classmethod
    def of(cls, poll: Callable[[], ModelVersion]) -> "Outcome":
        """Return the outcome of `poll()`, whatever it raises."""
        try:
            return cls(poll())
        except Exception as error:  # noqa: BLE001 - MLflow and its libraries may raise any
            return cls.failed(error)

    @classmethod
    def failed(cls, error: Exception) -> "Outcome":
        """Return the outcome of a poll that raised `error`, as other processes may see it."""
        return cls(None, _shareable(error))

    @property
    def is_recent(self) -> bool:
        """Whether the registry has returned the version within the last seconds."""
        return self.version is not None and 0 <= time.time() - self.at < RECENT_S

    def result(self) -> ModelVersion:
        """Return the version, or raise the error."""
        if self.version is None:
            raise self.error or PollFailed("the poll has no outcome")
        return self.version

    def to_json(self) -> dict[str, Any]:
        """Return the outcome for JSON, without credentials."""
        error = self.error and {"type": type(self.error).__name__, "fields": _fields(self.error)}
        version = self.version and self.version.to_json()
        return {"format": FORMAT, "at": self.at, "version": version, "error": error, "pid": os.getpid()}

    @classmethod
    def from_json(cls, content: Any) -> "Outcome | None":
        """Return the outcome that `to_json` described; None if this release cannot read it."""
        try:
            if content["format"] != FORMAT:
                return None
            version, error = content["version"], content["error"]
            return cls(
                version and ModelVersion.from_json(version),
                error and _SHAREABLE[error["type"]](**error["fields"]),
                float(content["at"]),
            )
        except (KeyError, TypeError, ValueError):
            return None


class WantedFile:
    """A file with an outcome. It is replaced as a whole, so that readers need no lock."""

    def __init__(self, directory: Path, name: str) -> None:
        """`directory` is that of the bundle cache."""
        self._path = directory / "wanted" / f"{name}.json"

    def signature(self) -> Signature:
        """Return what tells whether another process has written the file. It takes microseconds."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def read(self) -> Outcome | None:
        """Return the outcome, None if there is no readable one."""
        try:
            return Outcome.from_json(json.loads(self._path.read_text()))
        except (OSError, ValueError):
            return None

    def write(self, outcome: Outcome) -> Signature:
        """Replace the file, and return its signature. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._path.parent) as temporary:
            file = Path(temporary, self._path.name)
            file.touch(mode=0o600)  # tags may be confidential
            file.write_text(json.dumps(outcome.to_json()))
            status = file.stat()
            file.replace(self._path)
        return status.st_mtime_ns, status.st_ino


_SHAREABLE: dict[str, type[RegistryError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, RegistryError) and kind is not RegistryError
}
"""The errors that a process restores from the file, by name."""


def _shareable(error: Exception) -> ServingError:
    """Return the error as other processes may see it: of an unexpected one, its type and where its details are."""
    if isinstance(error, ServingError):
        is_known = type(error).__name__ in _SHAREABLE and all(isinstance(text, str) for text in _fields(error).values())
        return error if is_known else PollFailed(str(error))
    return PollFailed(f"{type(error).__name__}; the log of process {os.getpid()}, which polls, has the details")


def _fields(error: ServingError) -> dict[str, Any]:
    values = {each.name: getattr(error, each.name) for each in fields(error)}  # type: ignore[arg-type]
    return {name: redacted(value) if isinstance(value, str) else value for name, value in values.items()}

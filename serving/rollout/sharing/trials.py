"""One trial a node: the outcome of a trial is recorded in the bundle's directory of the cache, for other replicas.

A record holds for the same files, limits, execution provider, ONNX Runtime and code only: they are in its name.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from serving.registry.node.file_lock import FileLock
from serving.rollout import candidate_trial
from serving.rollout.candidate_trial import TrialConditions
from serving.rollout.errors import CandidateRejected

logger = logging.getLogger(__name__)

REJECTED_FOR_S = 60.0
"""Other replicas reuse a rejection for that long. A replica that starts later tries the version again."""
MARGIN_S = 5.0
"""How much longer than the time limit of a trial its end is waited for."""


class SharedTrial:
    """The trial of one version under the same conditions, which the first replica of a node runs for all."""

    def __init__(self, directory: Path, tags: Mapping[str, str], conditions: TrialConditions) -> None:
        """`directory` is that of the bundle in the cache, `tags` are those of the version."""
        described = json.dumps([asdict(conditions), _code(), _runtime()], sort_keys=True)
        name = f"trial-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
        self._record, self._lock = directory / f"{name}.json", FileLock(directory / f".{name}.lock")
        self._tags = hashlib.sha256(json.dumps(dict(tags), sort_keys=True).encode()).hexdigest()
        self._timeout_s = conditions.timeout_s

    def run(self, trial: Callable[[], None]) -> None:
        """Call `trial`, unless another replica has; then raise or return as it did.

        A trial that ends at its time limit, because the machine was busy or the policy never ends, is not recorded.
        Other tags of a version, which a person sets to have it tried again, make a recorded rejection invalid.

        Raises:
            CandidateRejected: the trial was rejected, here or by another replica within the last minute.
            BundleError: what else `trial` raises. It is not recorded.
        """
        with self._lock.held(self._timeout_s + MARGIN_S):
            recorded = self._recorded()
            if recorded is not None:
                if recorded["error"] is not None:
                    raise CandidateRejected(recorded["error"])
                return
            began = monotonic()
            try:
                trial()
            except CandidateRejected as error:
                if monotonic() - began < self._timeout_s:
                    self._write(error.reason)
                raise
            self._write(None)

    def _recorded(self) -> dict[str, Any] | None:
        try:
            record = json.loads(self._record.read_text())
            is_rejection = record["error"] is not None
            is_recent = 0 <= time.time() - record["at"] < REJECTED_FOR_S and record["tags"] == self._tags
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if is_recent or not is_rejection else None

    def _write(self, error: str | None) -> None:
        temporary = self._record.with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # other replicas try the version themselves then
            temporary.write_text(json.dumps({"error": error, "tags": self._tags, "at": time.time()}))
            temporary.replace(self._record)


@cache
def _code() -> str:
    """Return the digest of the code that a trial runs. A release number would not change with each change of it."""
    rollout = Path(candidate_trial.__file__).parent
    folders = [rollout / "trial", rollout.parent / "policy"]
    files = [Path(candidate_trial.__file__), *(file for folder in folders for file in sorted(folder.rglob("*.py")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _runtime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)

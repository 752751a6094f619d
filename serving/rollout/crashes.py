"""Recognizes a version that ended the process of a replica, as by a segmentation fault in ONNX Runtime.

Each replica has a file `<cache>/crashes/<scope>/<id>.txt`, which it locks. It holds a line for each policy that the
replica has loaded: the label of the policy's frame, and the version. When a fatal signal arrives, Python appends the
frames of all threads, before the process ends. The other replicas of the node see it at once, and a replica that starts
sees it later. A process that was killed by SIGKILL writes nothing.
"""

import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from serving.errors import redacted
from serving.registry.model_version import ModelVersion
from serving.replica.refresh_state import CRASHED
from serving.rollout.refusals import Refusals, key_of

logger = logging.getLogger(__name__)

FATAL = "Fatal Python error: "
MAX_BYTES = 1 << 20
FULL_LOOK_EVERY = 10
"""Every so many looks, the files that have not grown are looked at as well."""

_THREAD = re.compile(r"^(Current thread|Thread) 0x", re.MULTILINE)


def label_of(version: ModelVersion) -> str:
    """Return the name of the frame in which the version's policy computes."""
    return f"version_{version.version}_{key_of(version)[:12]}"


class Crashes:
    """The crash file of this replica, and those of the others on its node."""

    def __init__(self, directory: Path, scope: str, refusals: Refusals) -> None:
        """`directory` is that of the bundle cache, `scope` names the application's files."""
        self._directory, self._refusals = directory / "crashes" / scope, refusals
        self._lines: dict[str, ModelVersion] = {}
        self._file: TextIO | None = None
        self._name = ""
        self._sizes: dict[str, int] = {}
        """The sizes of other replicas' files when they were last read."""
        self._looks = 0

    def enable(self) -> None:
        """Have Python write to the file of this process when a fatal signal arrives. Later calls do nothing."""
        if self._file is not None:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = self._locked_file()
        except OSError as error:
            logger.warning("crashes of this replica are not recorded below %s: %s", self._directory, error)
            return
        for label, version in self._lines.items():
            self._write(self._file, label, version)
        faulthandler.enable(self._file, all_threads=True)

    def _locked_file(self) -> TextIO:
        """Create a file and lock it. Another replica may delete it before it is locked. Raises OSError."""
        while True:
            path = self._directory / f"{uuid.uuid4().hex}.txt"
            file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600), "a")
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                self._name = path.name
                return file
            file.close()

    def note(self, label: str, version: ModelVersion) -> None:
        """Record which version the policy with that label is, now that it is loaded or its tags have changed."""
        self._lines[label] = version
        if self._file is not None:
            self._write(self._file, label, version)

    def collect(self) -> None:
        """Refuse the versions that ended other replicas of this node, and log what was written about their end."""
        self._looks += 1
        with contextlib.suppress(OSError):  # there is no such directory
            for path in list(self._directory.iterdir()):
                if path.name != self._name:
                    self._look_at(path)

    @property
    def _is_due(self) -> bool:
        """Whether to look also at files that have not grown: their replicas may have ended."""
        return self._looks % FULL_LOOK_EVERY == 1

    @staticmethod
    def _write(file: TextIO, label: str, version: ModelVersion) -> None:
        with contextlib.suppress(OSError):  # the disk is full
            file.write(json.dumps([label, version.to_json()]) + "\n")
            file.flush()

    def _look_at(self, path: Path) -> None:
        """Read the file of another replica if it has changed, and delete it if the replica has ended."""
        size = path.stat().st_size
        if self._sizes.get(path.name) == size and not self._is_due:
            return
        with path.open(errors="replace") as file:
            if FATAL in (text := file.read(MAX_BYTES)):
                self._refuse(text)
            self._sizes[path.name] = size
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # its process lives, or is just ending
            self._sizes.pop(path.name, None)
            if path.exists():  # no other replica has deleted it
                path.unlink()
                self._log(file)

    def _log(self, file: TextIO) -> None:
        file.seek(0)
        _, found, dump = file.read(MAX_BYTES).partition(FATAL)
        if found:
            logger.error("a replica of this node crashed:\n%s%s", FATAL, redacted(dump.strip()))

    def _refuse(self, text: str) -> None:
        """Refuse the version that computed when the process crashed, if one did."""
        lines, _, dump = text.partition(FATAL)
        versions = dict(_versions(lines))
        error = dump.partition("\n")[0]
        for label, version in versions.items():
            if computed(label, dump):
                self._refusals.add(version, CRASHED, f"it ended the process of a replica: {error}")


def computed(label: str, dump: str) -> bool:
    """Return whether the policy with that label computed in the thread that crashed.

    A thread of ONNX Runtime has no frames of Python. Then the policy computed for which another thread waits.
    """
    starts = [match.start() for match in _THREAD.finditer(dump)]
    threads = [dump[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    crashed = [thread for thread in threads if thread.startswith("Current") and '  File "' in thread]
    return any(re.search(rf" in {label}$", thread, re.MULTILINE) for thread in crashed or threads)


def _versions(lines: str) -> Iterator[tuple[str, ModelVersion]]:
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a line that a full disk has cut
            label, content = json.loads(line)
            yield label, ModelVersion.from_json(content)

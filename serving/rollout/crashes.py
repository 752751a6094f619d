"""Recognizes a version that ended the process of a replica, as by a segmentation fault in ONNX Runtime.

Each replica has a file `<cache>/crashes/<scope>/<id>.txt`, which it locks. It ends with a line for each policy that the
replica has loaded: the label of the policy's frame, and the version. When a fatal signal arrives, Python writes the
frames of all threads to its begin, before the process ends. The other replicas of the node see it at once, and a
replica that starts sees it later. A process that was killed by SIGKILL writes nothing.
"""

import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Iterator
from itertools import pairwise
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import BinaryIO

from serving.errors import redacted
from serving.policy.errors import VersionCrashed
from serving.registry.model_version import ModelVersion
from serving.rollout.refusals import Refusals, key_of

logger = logging.getLogger(__name__)

FATAL = "Fatal Python error: "
LAST = "\nExtension modules: "
"""What Python writes first and last."""
DUMP_BYTES = 1 << 20
"""The part of the file for what Python writes. It takes no space on the disk until then."""
LINES_BYTES = 4 << 20
FULL_LOOK_EVERY = 10
"""Every so many looks, the replicas whose files have not changed are looked at as well: they may have ended."""

_THREAD = re.compile(r"^(Current thread|Thread) 0x", re.MULTILINE)


def label_of(version: ModelVersion) -> str:
    """Return the name of the frame in which the version's policy computes."""
    return f"version_{version.version}_{key_of(version)[:12]}"


class Crashes:
    """The crash file of this replica, and those of the others on its node."""

    def __init__(self, directory: Path, scope: str, refusals: Refusals) -> None:
        """`directory` is that of the bundle cache, `scope` names the application's files."""
        self._directory, self._refusals = directory / "crashes" / scope, refusals
        self._versions: dict[str, ModelVersion] = {}
        """The version of each policy that this replica has loaded, by its label."""
        self._file: BinaryIO | None = None
        self._name = ""
        self._maps: dict[str, mmap] = {}
        """The beginnings of the other replicas' files by their names."""
        self._alarms: tuple[mmap, ...] = ()
        """Those of the replicas of whose end nothing is known yet. It is replaced as a whole."""
        self._looks = 0
        self._lock = threading.RLock()

    def has_alarm(self) -> bool:
        """Return whether another replica has just crashed, in 0.1 microseconds for each of them.

        The first byte of its file changes before its connections end. The proxy then sends its requests to others.
        """
        for start in self._alarms:  # noqa: SIM110 - a generator would take longer
            if start[0]:
                return True
        return False

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
        for label, version in self._versions.items():
            self._write(self._file, label, version)
        faulthandler.enable(self._file, all_threads=True)

    def note(self, label: str, version: ModelVersion) -> None:
        """Record which version the policy with that label is, now that it is loaded or its tags have changed.

        Most tags mean nothing here. They change for as long as the version is served, and the file must not grow.
        """
        before, self._versions[label] = self._versions.get(label), version
        if self._file is not None and (before is None or key_of(before) != key_of(version)):
            self._write(self._file, label, version)

    def have_refused(self, version: ModelVersion) -> bool:
        """Collect them, and return whether a version is refused."""
        self.collect()
        return self._refusals.of(version) is not None

    def collect(self) -> None:
        """Refuse the versions that ended other replicas of this node, and log what was written about their end."""
        with self._lock, contextlib.suppress(OSError):  # there is no such directory
            self._looks += 1
            names = {path.name for path in self._directory.iterdir()} - {self._name}
            for name in self._maps.keys() - names:  # another replica has deleted it
                self._forget(name)
            for name in names:
                with contextlib.suppress(OSError):  # it has just been deleted
                    self._look_at(self._directory / name)

    def _locked_file(self) -> BinaryIO:
        """Create a file and lock it. Another replica may delete it before it is locked. Raises OSError."""
        while True:
            path = self._directory / f"{uuid.uuid4().hex}.txt"
            file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "r+b", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                os.truncate(file.fileno(), DUMP_BYTES)
                self._name = path.name
                return file
            file.close()

    @staticmethod
    def _write(file: BinaryIO, label: str, version: ModelVersion) -> None:
        """Append a line. The position of the file stays at its begin, where Python writes at a crash."""
        line = json.dumps([label, version.to_json()]).encode() + b"\n"
        with contextlib.suppress(OSError):  # the disk is full
            os.pwrite(file.fileno(), line, os.fstat(file.fileno()).st_size)

    def _look_at(self, path: Path) -> None:
        """Read what Python wrote into the file of another replica, and delete the file if the replica has ended."""
        if (start := self._maps.get(path.name)) is None:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < DUMP_BYTES:
                    return  # it is just being created
                start = self._maps[path.name] = mmap(file.fileno(), 1, prot=PROT_READ)
            self._alarms = (*self._alarms, start)
        if start[0] or self._looks % FULL_LOOK_EVERY == 1:
            with path.open("rb") as file:
                dump = file.read(DUMP_BYTES).rstrip(b"\0").decode(errors="replace")
                if (
                    dump
                    and start in self._alarms
                    and self._refuse(dump, file.read(LINES_BYTES).decode(errors="replace"))
                ):
                    self._alarms = tuple(each for each in self._alarms if each is not start)
                self._delete(path, file, dump)

    def _delete(self, path: Path, file: BinaryIO, dump: str) -> None:
        """Delete the file and log the dump if the replica has ended, and no other replica has done so."""
        with contextlib.suppress(BlockingIOError):  # it lives, or is just ending
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._forget(path.name)
            path.unlink()
            if dump:
                logger.error("a replica of this node crashed:\n%s", redacted(dump.strip()))

    def _forget(self, name: str) -> None:
        start = self._maps.pop(name)
        self._alarms = tuple(each for each in self._alarms if each is not start)

    def _refuse(self, dump: str, lines: str) -> bool:
        """Refuse the version that computed when the process crashed. Return whether the dump says all it will say."""
        error, _, threads = dump.removeprefix(FATAL).partition("\n")
        guilty = [version for label, version in dict(_versions(lines)).items() if computed(label, threads)]
        for version in guilty:
            self._refusals.add(version, VersionCrashed.code, f"it ended the process of a replica: {error}")
        return bool(guilty) or LAST in threads


def computed(label: str, dump: str) -> bool:
    """Return whether the policy with that label computed in the thread that crashed.

    A thread of ONNX Runtime has no frames of Python. Then the policy computed for which another thread waits.
    """
    starts = [match.start() for match in _THREAD.finditer(dump)]
    threads = [dump[start:end] for start, end in pairwise([*starts, len(dump)])]
    crashed = [thread for thread in threads if thread.startswith("Current") and '  File "' in thread]
    return any(re.search(rf" in {label}$", thread, re.MULTILINE) for thread in crashed or threads)


def _versions(lines: str) -> Iterator[tuple[str, ModelVersion]]:
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a line that a full disk has cut
            label, content = json.loads(line)
            yield label, ModelVersion.from_json(content)

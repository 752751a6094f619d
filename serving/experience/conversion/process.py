"""The process of a node that converts its segments, one at a time, with the CPU time that nothing else needs.

A store that cannot be used costs nothing but time: the segments stay, and the process tries again. It may be killed at
any moment.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from serving.experience.conversion.audit import Auditor
from serving.experience.conversion.backlog import backlog, complete_segments
from serving.experience.conversion.converter import Converter
from serving.experience.conversion.supervisor import STOPPING_S
from serving.experience.errors import StoreUnavailable
from serving.experience.journal.segment import SUFFIX
from serving.experience.store import check_uri, open_store
from serving.processes import die_with_parent

logger = logging.getLogger(__name__)

NICENESS = 19
POLL_S = 1.0
"""The pause after a look at the journal."""
MAX_PAUSE_S = 30.0
"""The longest pause while the store cannot be used; the first lasts POLL_S, each further one twice as long."""
POSTPONED_S, MAX_POSTPONED_S = 5.0, 300.0
"""The time after which a segment is tried again that could not be converted, although the store can be used. It
doubles with each attempt, up to the second."""
OTHERS_S = 2.0
"""The time in which replicas that stop together close their journals one after the other."""
ATTEMPTS_FILE = "converting.json"
MAX_ATTEMPTS = 3
"""If the process ends so often while it converts one segment, it leaves the audit of that one out."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Attempts:
    """Counts, in a file of the journal, how often the process has ended during the conversion of a segment.

    A graph that makes ONNX Runtime crash, or take all memory, must not keep the segment in the journal for ever.
    """

    path: Path
    name: str = ""
    count: int = 0

    @classmethod
    def read(cls, path: Path) -> "Attempts":
        """Return what the last process has left behind."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text())
            return cls(path, str(content["segment"]), int(content["attempts"]))
        return cls(path)

    def begin(self, name: str) -> bool:
        """Note that a segment is being converted. Return whether it may be audited."""
        self.count = self.count + 1 if self.name == name else 1
        self.name = name
        with suppress(OSError):  # a full disk must not keep the segments that fill it
            self.path.write_text(json.dumps({"segment": name, "attempts": self.count}))
        return self.count <= MAX_ATTEMPTS

    def end(self) -> None:
        """Note that this process survived the conversion."""
        self.name, self.count = "", 0
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class Postponed(NamedTuple):
    """When a segment is tried again, and how long it has waited for that."""

    until: float
    pause_s: float

    @classmethod
    def after(cls, last: "Postponed | None") -> "Postponed":
        """Return the next attempt after one that failed; `last` is what was planned before it."""
        pause_s = POSTPONED_S if last is None else min(2 * last.pause_s, MAX_POSTPONED_S)
        return cls(time.monotonic() + pause_s, pause_s)


class ConversionLoop:
    """Converts the complete segments of a journal until it is stopped.

    Args:
        journal: the directory of the journal.
        uri: the store of experience.
        cache: the directory of the node's bundle cache.
    """

    def __init__(self, journal: Path, uri: str, cache: Path) -> None:
        self._journal, self._uri, self._auditor = journal, uri, Auditor(cache)
        self._attempts = Attempts.read(journal / ATTEMPTS_FILE)
        self._converter: Converter | None = None
        self._postponed: dict[Path, Postponed] = {}
        self._is_outage = False
        self._stopping = threading.Event()

    def run(self) -> None:
        """Convert until `stop` is called, and then what is complete."""
        pause = 0.0
        while not self._stopping.wait(pause):
            pause = POLL_S if self.convert_all() else min(max(2 * pause, POLL_S), MAX_PAUSE_S)
        until = time.monotonic() + OTHERS_S
        while self.convert_all() and any(self._journal.glob(f"*{SUFFIX}")) and time.monotonic() < until:
            time.sleep(OTHERS_S / 20)

    def stop(self) -> None:
        """Have `run` return. Another thread calls it."""
        self._stopping.set()

    def convert_all(self) -> bool:
        """Convert the segments that are complete now. Return whether the store can be used."""
        try:
            for path in complete_segments(self._journal):
                if path not in self._postponed or self._postponed[path].until <= time.monotonic():
                    self._convert(path)
        except StoreUnavailable as error:
            self._begin_outage(error)
            return False
        return True

    def _convert(self, path: Path) -> None:
        """Convert a segment, or postpone it if the reason is the segment. Raises StoreUnavailable."""
        if self._converter is None:
            self._converter = Converter(open_store(self._uri), self._auditor)
        try:
            is_audited = self._attempts.begin(path.name)
            done = self._converter.convert(path, is_audited=is_audited)
        except FileNotFoundError as error:
            if path.exists():  # then it is a directory or a bucket of the store that is missing
                raise StoreUnavailable(self._uri, str(error)) from error
        except StoreUnavailable:
            raise
        except OSError as error:
            self._postpone(path, f"it cannot be read or deleted: {error}")
        except Exception:  # one segment must not keep all others in the journal
            logger.exception("segment %s", path.name)
            self._postpone(path, "the conversion failed")
        else:
            self._end_outage()
            if done is None:
                self._postpone(path, "a later release has written it")
            else:
                self._postponed.pop(path, None)
        finally:
            self._attempts.end()

    def _postpone(self, path: Path, reason: str) -> None:
        if path not in self._postponed:
            logger.warning("segment %s stays in the journal: %s", path, reason)
        self._postponed[path] = Postponed.after(self._postponed.get(path))

    def _begin_outage(self, error: StoreUnavailable) -> None:
        if not self._is_outage:
            waiting = backlog(self._journal)
            logger.warning(
                "%s. The journal keeps %d segments (%d bytes), and more while there is space; trying again",
                *(error, *waiting),
            )
        self._is_outage = True

    def _end_outage(self) -> None:
        if self._is_outage:
            logger.warning("the store of experience %s can be used again", self._uri)
        self._is_outage = False


def run(journal: Path, uri: str, cache: Path, *, parent: int | None = None, once: bool = False) -> bool:
    """Run a converter in this process until SIGTERM or SIGINT. Return whether no complete segment is left.

    After the signal, it converts for STOPPING_S at most.

    Args:
        journal: the directory of the journal.
        uri: the store of experience.
        cache: the directory of the node's bundle cache.
        parent: the process with which this one ends.
        once: convert what is complete, and return.

    Raises:
        ExperienceUriInvalid: the URI is of no kind that can be opened.
    """
    check_uri(uri)
    # Blocked in all threads that start from now on, so that the one which waits for them gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    if parent is not None:
        die_with_parent()
        if os.getppid() != parent:
            return False
    _step_back()
    loop = ConversionLoop(journal, uri, cache)
    threading.Thread(target=_stop_on_signal, args=(loop,), daemon=True).start()
    if once:
        loop.convert_all()
    else:
        loop.run()
    return not backlog(journal).segments


def _stop_on_signal(loop: ConversionLoop) -> None:
    signal.sigwait(_STOP_SIGNALS)
    loop.stop()
    time.sleep(STOPPING_S)
    os._exit(0)


def _step_back() -> None:
    """Leave the CPUs and the disks to all other processes."""
    os.nice(NICENESS)
    if sys.platform == "linux":
        with suppress(OSError, psutil.Error):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)

"""Puts this process into a sandbox, with the layers that the kernel has, and says which these are."""

import ctypes
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.sandbox import landlock, python_files, seccomp
from serving.sandbox.limits import limit_memory, limit_use

PR_SET_NO_NEW_PRIVS = 38

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sandbox:
    """What a confined process may still do. It may read Python's modules and libraries, and start threads."""

    memory_bytes: int
    """Memory that it may allocate from now on."""
    file_bytes: int
    """The largest file that it may write, in memory or on a disk."""
    cpu_s: float | None = None
    """CPU time of all its threads from now on. The limit makes Linux measure CPU time less exactly."""
    writable: Path | None = None
    """The only directory in which it may write."""
    modules: tuple[str, ...] = ()
    """Modules that it may read although they are in no package of `sys.path`."""
    gpu: bool = False
    """Whether it may use the devices of GPUs."""

    def enter(self) -> None:
        """Confine this process, for good. What the kernel cannot restrict stays allowed: see `missing_layers`.

        Landlock restricts the calling thread and those that it starts later, the rest all threads.
        """
        limit_memory(self.memory_bytes, addresses=not self.gpu)
        limit_use(self.file_bytes, self.cpu_s)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            landlock.restrict(self._files())
            seccomp.deny_system_calls()

    def _files(self) -> dict[landlock.Access, list[Path]]:
        directories = [Path(directory) for directory in filter(None, sys.path)]
        return {
            landlock.Access.READ_DIR: directories,  # imports list them
            landlock.READ: [*python_files.library_directories(), *python_files.module_files(self.modules)],
            landlock.WRITE: [] if self.writable is None else [self.writable],
            landlock.DEVICE: [
                *map(Path, python_files.DEVICES),
                *(python_files.gpu_devices() if self.gpu else ()),
            ],
        }


def missing_layers() -> list[str]:
    """Return a clause on each layer that this system lacks: what it would keep confined processes from."""
    clauses = {
        "Landlock, so they can read and write this user's files": landlock.version() > 0,
        "seccomp, so they can start processes and use the network": seccomp.is_available(),
    }
    return [clause for clause, is_active in clauses.items() if not is_active]


def log_layers() -> None:
    """Log what confines the trial of new versions and the environments of `/play` on this machine, in one line."""
    confined = "new versions are tried, and environments of /play run,"
    if missing := missing_layers():
        logger.warning("%s without %s", confined, "; and without ".join(missing))
    else:
        logger.info("%s with Landlock and seccomp", confined)

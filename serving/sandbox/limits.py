"""Limits what this process may use of the machine (man 2 setrlimit)."""

import math
import resource
import time
from contextlib import suppress
from pathlib import Path

MAX_OPEN_FILES = 512
MAX_MORE_THREADS = 256

MAPPED_BYTES = 4 << 30
"""The addresses that a process may use beyond its own memory, for files that it maps and for memory that it shares."""


def limit_memory(more_bytes: int, *, addresses: bool) -> None:
    """Allow this process to allocate that many bytes more. Only Linux has the limit.

    When the machine has no memory left, Linux ends this process first.

    Args:
        more_bytes: private memory.
        addresses: also limit the addresses, and so the memory that it shares. The driver of a GPU reserves far more
            addresses than it uses.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    private, all_addresses = (1024 * int(lines[name].split()[0]) for name in ("VmData", "VmSize"))
    _limit(resource.RLIMIT_DATA, private + more_bytes)
    if addresses:
        _limit(resource.RLIMIT_AS, all_addresses + more_bytes + MAPPED_BYTES)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_use(file_bytes: int, cpu_s: float | None) -> None:
    """Limit the size of each file, open files, threads and the CPU time from now on; leave no core dump.

    The kernel kills this process after `cpu_s` seconds. It exempts root from the limit on threads.
    """
    _limit(resource.RLIMIT_CORE, 0)
    if cpu_s is not None:
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + cpu_s))
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    load = Path("/proc/loadavg")
    if load.exists():
        # The limit counts all threads of the user. They are at most those of the machine, "running/all".
        _limit(resource.RLIMIT_NPROC, int(load.read_text().split()[3].partition("/")[2]) + MAX_MORE_THREADS)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (lowest, lowest))

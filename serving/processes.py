"""What processes share: the CPUs that they may use, and the environment and the end of child processes."""

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, for which glibc has no function, by machine."""

SLICE_NS = 100_000

NICENESS = 10
"""The niceness of child processes, so that requests are computed first."""

HARMLESS_VARIABLES = frozenset(
    ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED")
)
HARMLESS_PREFIXES = (
    *("LC_", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOMP_", "NUMEXPR_", "NUMBA_"),
    *("CUDA_", "NVIDIA_", "SDL_", "PYGAME_", "MUJOCO_", "PYOPENGL_", "EGL_", "MESA_", "LIBGL_", "GALLIUM_"),
)
"""The environment variables that a child which runs what is not trusted may see."""


def available_cpus() -> int:
    """Return how many CPUs this process may use, at least 1.

    These are the CPUs of its affinity mask, which `taskset` and cpusets restrict, but not more than the whole CPUs of
    the quotas of its control groups, as containers have them.
    """
    # macOS has no affinity masks.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_cpu_quotas()])))


def _cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups and of the groups above them, in CPUs."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "cpu", "cpu,cpuacct"):
                mounted = root / "sys/fs/cgroup" / controllers
                # In a container, the path may be the host's, while its own group is mounted at the root.
                for path in (Path(group), *Path(group).parents):
                    yield from _quota_of(mounted / str(path).lstrip("/"))


def _quota_of(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):  # there is no such group, or its quota is "max"
        if (group / "cpu.max").exists():
            quota, period = map(float, (group / "cpu.max").read_text().split())
        else:
            quota, period = (float((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if quota > 0 and period > 0:
            yield quota / period


def child_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment variables for a child that can import all that this process can import.

    Args:
        variables: more variables.
    """
    path = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    # OpenBLAS would start a pool of threads that no child needs.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1", **variables}


def untrusted_environment(**variables: str) -> dict[str, str]:
    """Return the environment variables of a child that runs what is not trusted, without this process's secrets.

    They are those of `child_environment` that configure the system's libraries: none of MLflow, Ray or a cloud.

    Args:
        variables: more variables.
    """
    inherited = {
        name: value
        for name, value in child_environment().items()
        if name in HARMLESS_VARIABLES or name.startswith(HARMLESS_PREFIXES)
    }
    return {**inherited, **variables}


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def shorten_slice() -> None:
    """Ask the scheduler for short time slices for this thread, which it then runs sooner after it was woken.

    Linux allows it to every user from 6.12 on. Before, and elsewhere, this has no effect.
    """
    if sys.platform == "linux" and (call := SCHED_SETATTR.get(platform.machine())):
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        # struct sched_attr: size, policy, flags, nice, priority, runtime (of SCHED_OTHER: the slice), deadline, period
        attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(call, 0, attributes, 0)


def adopt_orphans() -> None:
    """Make this process the parent of all descendants whose own parent dies. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_children() -> None:
    """Kill all children of this process, and the orphans that it adopts meanwhile, until there are none.

    Ray's agents wait up to a minute for a Ray that was stopped while it started. Their parent has died by then.
    """
    while children := _children():
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with suppress(ChildProcessError):  # another thread has waited for it
                os.waitpid(child, 0)


def _children() -> list[int]:
    children: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            children += map(int, thread.read_text().split())
    return children

"""The directory of HAProxy's files and sockets: of this user alone, removed when its server or node has ended.

A server that was killed leaves its directory behind, and a later start removes it. The owner holds a lock on a file in
the directory, which the system releases however the process ends. The directory of a node of a cluster belongs to the
processes of `ray start`, which live on without this one: it is in use while one of them has it in its environment.
On the other nodes of a cluster, Serve makes a directory of the head's name: it is in use while Serve's proxy runs.
"""

import atexit
import fcntl
import hashlib
import os
import shlex
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from serving.ray.errors import NoExecutableDirectory
from serving.ray.haproxy_wrapper import LOCKS, PROXY, describe
from serving.registry.registry import default_cache_dir

ROOT = Path("/tmp")  # noqa: S108 - the directories in it are of this user alone
"""Unix socket paths are limited to 107 bytes, and Serve adds 57 for the node's id, so TMPDIR may be too long."""

PREFIX = "serving-"

LOCK, NODE = LOCKS
"""The lock of a server's directory, and that of a node's, with the PID namespace in which its processes can be seen.

They differ because earlier releases remove a directory in which LOCK is free.
"""

VARIABLE = "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"
"""The environment variable of a node's processes with a path in its directory."""

PID_NAMESPACE = Path("/proc/self/ns/pid")


def create() -> Path:
    """Create a directory that is removed when this process ends, and remove those of servers that were killed."""
    directory = _create_locked(LOCK)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def create_for_node() -> Path:
    """Create a directory for the processes that this process becomes and starts; a start after their end removes it."""
    directory = _create_locked(NODE)
    (directory / NODE).write_text(_pid_namespace())
    return directory


def _create_locked(file: str) -> Path:
    """Create a directory that is locked until this process ends or executes another program."""
    _remove_abandoned()
    hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=ROOT))
    # The descriptor stays open as long as this process, and its children do not inherit it.
    fcntl.flock(os.open(hidden / file, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    return hidden.rename(ROOT / hidden.name.removeprefix("."))  # only a locked directory has the prefix


def write_script(directory: Path, haproxy: str) -> Path:
    """Write a script that runs `haproxy_wrapper.py` for a HAProxy, into `directory` or, if that forbids, the cache.

    Raises:
        NoExecutableDirectory: Both are on file systems from which nothing can be executed.
    """
    wrapper = str(Path(__file__).with_name("haproxy_wrapper.py"))
    content = f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", wrapper, haproxy])} "$@"\n'
    cache = default_cache_dir()
    # Servers share the script in the cache, so that none is left behind.
    shared = cache / f"haproxy-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    for script in (directory / "haproxy", shared):
        with suppress(OSError):
            script.parent.mkdir(parents=True, exist_ok=True)
            if not os.statvfs(script.parent).f_flag & os.ST_NOEXEC:
                _write(script, content)
                return script
    raise NoExecutableDirectory(str(ROOT), str(cache))


def _write(script: Path, content: str) -> None:
    """Write the script in one step, because another server may be executing it."""
    with tempfile.NamedTemporaryFile("w", dir=script.parent, delete=False) as file:
        file.write(content)
    written = Path(file.name)
    written.chmod(stat.S_IRWXU)
    written.rename(script)


def _remove_abandoned() -> None:
    for directory in ROOT.glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):  # it is another program's or user's, or its server runs
            found = directory.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                if not any((directory / lock).exists() for lock in LOCKS):
                    _remove_if_without_proxy(directory)
                else:
                    _remove_if_unlocked(directory)


def _remove_if_without_proxy(directory: Path) -> None:
    """Remove a directory that Serve made if its proxy has ended. Raises OSError or ValueError if it is another's."""
    described = (directory / PROXY).read_text()
    namespace, pid, _ = described.split()
    if namespace != _pid_namespace():  # of another container that shares /tmp
        return
    try:
        runs = describe(int(pid)) == described
    except OSError:
        runs = False
    if not runs:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_if_unlocked(directory: Path) -> None:
    file = NODE if (directory / NODE).exists() else LOCK
    lock = os.open(directory / file, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_used_by_node(directory):
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(lock)


def _is_used_by_node(directory: Path) -> bool:
    """Return whether it is the directory of a node that runs, or that may run where this process cannot see it."""
    node = directory / NODE
    if not node.exists():
        return False
    if node.read_text() != _pid_namespace():  # of another container that shares /tmp
        return True
    return any(_variable_of(process).startswith(f"{directory}{os.sep}") for process in psutil.process_iter())


def _variable_of(process: psutil.Process) -> str:
    try:
        return str(process.environ().get(VARIABLE, ""))
    except psutil.Error:  # it has just ended, or belongs to another user
        return ""


def _pid_namespace() -> str:
    return str(PID_NAMESPACE.stat().st_ino)

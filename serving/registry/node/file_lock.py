"""A lock between the processes of one node. The kernel releases it when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RETRY_S = 0.05


class FileLock:
    """A lock on a file, which is created if it does not exist. One thread at a time may use an object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free. Return whether this object holds it.

        Raises:
            OSError: the file cannot be created, or the file system has no locks.
        """
        if self._descriptor is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Child processes do not inherit the descriptor, so that they do not keep the lock.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_current = os.path.samestat(os.fstat(descriptor), self._path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_current = False
        except BaseException:
            os.close(descriptor)
            raise
        if not is_current:  # another process holds it, or has deleted the file meanwhile
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock if this object holds it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock within the context, and delete its file at the end.

        The context begins without the lock if another process holds it for longer than `timeout_s`, or if the file
        system has no locks: the lock spares work, and nothing breaks without it.
        """
        deadline = time.monotonic() + timeout_s
        is_held = False
        with suppress(OSError):
            while not (is_held := self.acquire()) and time.monotonic() < deadline:
                time.sleep(RETRY_S)
        try:
            yield
        finally:
            if is_held:
                with suppress(OSError):
                    self._path.unlink()
                self.release()

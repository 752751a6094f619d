"""Restricts files and network with Landlock (kernel.org/doc/html/latest/userspace-api/landlock.html)."""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import IntFlag
from pathlib import Path
from stat import S_ISDIR

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""The numbers of the system calls, on all architectures. The C library has no functions for them."""

VERSION = 1
PATH_BENEATH = 1


class Access(IntFlag):
    """The accesses to files that Landlock knows, LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.TRUNCATE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.MAKE_FIFO
    | Access.MAKE_SYM
    | Access.REFER
)
DEVICE = READ | Access.WRITE_FILE | Access.IOCTL_DEV

_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""What a rule on something else than a directory may allow."""

_FIRST_VERSION = (Access.REFER, 2), (Access.TRUNCATE, 3), (Access.IOCTL_DEV, 5)
_NETWORK, _NETWORK_VERSION = 0b11, 4
"""Binding and connecting TCP sockets."""
_SCOPES, _SCOPES_VERSION = 0b11, 6
"""Abstract Unix sockets and signals of processes outside."""


def version() -> int:
    """Return the version of Landlock in this kernel, 0 if there is none or it is off."""
    return max(0, _call(CREATE_RULESET, None, 0, VERSION)) if sys.platform == "linux" else 0


def restrict(allowed: Mapping[Access, Iterable[Path]]) -> bool:
    """Allow this thread, and those that it starts, no files and no network but these; return whether the kernel does.

    The process must have set "no new privileges". From version 6 of Landlock on, processes outside get no signals. In
    each version, they cannot be traced, so their memory and environment variables cannot be read.

    Args:
        allowed: directories and files with what is allowed in them. Those that do not exist are left out.
    """
    if not (known := version()):
        return False
    handled = Access((1 << 16) - 1)
    for access, first in _FIRST_VERSION:
        if known < first:
            handled &= ~access
    network = _NETWORK if known >= _NETWORK_VERSION else 0
    attributes = struct.pack("=Q", handled) + (struct.pack("=Q", network) if network else b"")
    if known >= _SCOPES_VERSION:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _call(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for access, paths in allowed.items():
            for path in paths:
                with suppress(OSError):
                    _allow(ruleset, path, access & handled)
        return _call(RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: Access) -> None:
    directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not S_ISDIR(os.fstat(directory).st_mode):
            access &= _OF_FILES
        _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", access, directory), 0)
    finally:
        os.close(directory)


def _call(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None).syscall(number, *arguments))

"""Denies system calls to this process (kernel.org/doc/html/latest/userspace-api/seccomp_filter.html).

The filter is a program of classic BPF: it loads words of `struct seccomp_data` and compares them.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator

from serving.sandbox.system_calls import (
    CLONE,
    CLONE3,
    DENIED,
    PRCTL,
    PRLIMIT64,
    SCHED_SETAFFINITY,
    SECCOMP,
    SIGNALS,
    SystemCall,
)

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of the machines whose system calls are known here."""

LOAD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, JUMP_IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

NUMBER, ARCHITECTURE = 0, 4
"""Offsets in `struct seccomp_data`."""

KILL_PROCESS, FAIL, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
"""What the filter returns; the number of the error is added to FAIL."""

SET_MODE_FILTER, GET_ACTION_AVAILABLE = 1, 2
ALL_THREADS = 1

X32_BIT = 0x40000000
"""Set in the numbers of x86_64's second, unused table of system calls."""

CLONE_THREAD = 0x00010000
PR_SET_PDEATHSIG = 1

Instruction = tuple[int, int, int, int]
"""The operation, how many instructions to skip if it is true and if it is false, and its operand."""


def is_available() -> bool:
    """Return whether this kernel filters system calls, and those of this machine are known."""
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        return False
    action = ctypes.c_uint32(FAIL)
    return _seccomp(GET_ACTION_AVAILABLE, 0, ctypes.byref(action)) == 0


def deny_system_calls() -> bool:
    """Deny all threads of this process, for good, what `system_calls` lists; return whether the kernel does.

    The process must have set "no new privileges". What is denied fails with EPERM, as if a permission were missing.
    """
    if not is_available():
        return False
    program = b"".join(struct.pack("=HBBI", *each) for each in _program(platform.machine()))
    buffer = ctypes.create_string_buffer(program)
    # struct sock_fprog: the number of instructions, and their address
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    return _seccomp(SET_MODE_FILTER, ALL_THREADS, described) == 0


def _seccomp(operation: int, flags: int, argument: object) -> int:
    number = getattr(SECCOMP, platform.machine())
    return int(ctypes.CDLL(None).syscall(number, operation, flags, argument))


def _program(machine: str) -> Iterator[Instruction]:
    yield LOAD, 0, 0, ARCHITECTURE
    yield JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[machine]
    yield RETURN, 0, 0, KILL_PROCESS  # 32-bit calls have other numbers
    yield LOAD, 0, 0, NUMBER
    if machine == "x86_64":
        yield from _deny_if(JUMP_IF_AT_LEAST, X32_BIT)
    for call in DENIED.values():
        yield from _deny_call(call, machine)
    # Its arguments are in memory, which a filter cannot read. The C library then uses `clone`.
    yield from _deny_call(CLONE3, machine, errno.ENOSYS)
    yield from _restrict(CLONE, machine, (LOAD, 0, 0, _argument(0)), (JUMP_IF_ANY_BIT, 1, 0, CLONE_THREAD))
    # The process would survive its parent.
    yield from _restrict(PRCTL, machine, (LOAD, 0, 0, _argument(0)), (JUMP_IF_EQUAL, 0, 1, PR_SET_PDEATHSIG))
    # Reading a limit passes no new one: the third argument, a pointer of two words, is null.
    yield from _restrict(
        PRLIMIT64,
        machine,
        (LOAD, 0, 0, _argument(2)),
        (JUMP_IF_EQUAL, 0, 2, 0),
        (LOAD, 0, 0, _argument(2) + 4),
        (JUMP_IF_EQUAL, 1, 0, 0),
    )
    for call in SIGNALS.values():
        yield from _restrict(call, machine, (LOAD, 0, 0, _argument(0)), (JUMP_IF_EQUAL, 1, 0, os.getpid()))
    # 0 is the calling thread.
    own = (JUMP_IF_EQUAL, 2, 0, os.getpid()), (JUMP_IF_EQUAL, 1, 0, 0)
    yield from _restrict(SCHED_SETAFFINITY, machine, (LOAD, 0, 0, _argument(0)), *own)
    yield RETURN, 0, 0, ALLOW


def _deny_call(call: SystemCall, machine: str, error: int = errno.EPERM) -> Iterator[Instruction]:
    number = getattr(call, machine)
    if number is not None:
        yield from _deny_if(JUMP_IF_EQUAL, number, error)


def _deny_if(operation: int, operand: int, error: int = errno.EPERM) -> Iterator[Instruction]:
    yield operation, 0, 1, operand
    yield RETURN, 0, 0, FAIL + error


def _restrict(call: SystemCall, machine: str, *tests: Instruction) -> Iterator[Instruction]:
    """Yield instructions that deny a call unless the tests skip the last but one of them, which denies it."""
    yield JUMP_IF_EQUAL, 0, len(tests) + 2, getattr(call, machine)
    yield from tests
    yield RETURN, 0, 0, FAIL + errno.EPERM
    yield RETURN, 0, 0, ALLOW


def _argument(index: int) -> int:
    """Return the offset of an argument's lower word, the first on both architectures, in `struct seccomp_data`."""
    return 16 + 8 * index

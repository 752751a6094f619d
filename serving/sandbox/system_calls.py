"""The system calls that a confined process may not make, with their numbers on x86_64 and aarch64."""

from typing import NamedTuple


class SystemCall(NamedTuple):
    """The numbers of a system call (include/uapi/asm-generic/unistd.h); None where an architecture lacks it."""

    x86_64: int | None
    aarch64: int | None


def _new(number: int) -> SystemCall:
    """Return a system call that has the same number everywhere, as all since Linux 5.1 have."""
    return SystemCall(number, number)


DENIED = {
    # Network. io_uring opens sockets, too.
    "socket": SystemCall(41, 198),
    "io_uring_setup": _new(425),
    # Other programs and processes; `clone` is restricted to threads.
    "fork": SystemCall(57, None),
    "vfork": SystemCall(58, None),
    "execve": SystemCall(59, 221),
    "execveat": SystemCall(322, 281),
    # The memory, the files, the priority and the limits of other processes.
    "ptrace": SystemCall(101, 117),
    "process_vm_readv": SystemCall(310, 270),
    "process_vm_writev": SystemCall(311, 271),
    "process_madvise": _new(440),
    "pidfd_open": _new(434),
    "pidfd_getfd": _new(438),
    "pidfd_send_signal": _new(424),
    "kcmp": SystemCall(312, 272),
    "rt_sigqueueinfo": SystemCall(129, 138),
    "rt_tgsigqueueinfo": SystemCall(297, 240),
    "setrlimit": SystemCall(160, 164),
    "setpriority": SystemCall(141, 140),
    "sched_setattr": SystemCall(314, 274),
    "sched_setscheduler": SystemCall(144, 119),
    "sched_setparam": SystemCall(142, 118),
    "ioprio_set": SystemCall(251, 30),
    "migrate_pages": SystemCall(256, 238),
    "move_pages": SystemCall(279, 239),
    # Modes, owners and times of files, which Landlock does not restrict, and files by handle.
    "chmod": SystemCall(90, None),
    "fchmod": SystemCall(91, 52),
    "fchmodat": SystemCall(268, 53),
    "fchmodat2": _new(452),
    "chown": SystemCall(92, None),
    "fchown": SystemCall(93, 55),
    "lchown": SystemCall(94, None),
    "fchownat": SystemCall(260, 54),
    "setxattr": SystemCall(188, 5),
    "lsetxattr": SystemCall(189, 6),
    "fsetxattr": SystemCall(190, 7),
    "setxattrat": _new(463),
    "removexattr": SystemCall(197, 14),
    "lremovexattr": SystemCall(198, 15),
    "fremovexattr": SystemCall(199, 16),
    "removexattrat": _new(466),
    "file_setattr": _new(469),
    "utime": SystemCall(132, None),
    "utimes": SystemCall(235, None),
    "futimesat": SystemCall(261, None),
    "utimensat": SystemCall(280, 88),
    "open_by_handle_at": SystemCall(304, 265),
    # Users, where the server runs as root.
    "setuid": SystemCall(105, 146),
    "setgid": SystemCall(106, 144),
    "setreuid": SystemCall(113, 145),
    "setregid": SystemCall(114, 143),
    "setresuid": SystemCall(117, 147),
    "setresgid": SystemCall(119, 149),
    "setgroups": SystemCall(116, 159),
    "setfsuid": SystemCall(122, 151),
    "setfsgid": SystemCall(123, 152),
    "capset": SystemCall(126, 91),
    # The system.
    "mount": SystemCall(165, 40),
    "umount2": SystemCall(166, 39),
    "pivot_root": SystemCall(155, 41),
    "chroot": SystemCall(161, 51),
    "unshare": SystemCall(272, 97),
    "setns": SystemCall(308, 268),
    "open_tree": _new(428),
    "open_tree_attr": _new(467),
    "move_mount": _new(429),
    "fsopen": _new(430),
    "fsconfig": _new(431),
    "fsmount": _new(432),
    "fspick": _new(433),
    "mount_setattr": _new(442),
    "bpf": SystemCall(321, 280),
    "perf_event_open": SystemCall(298, 241),
    "userfaultfd": SystemCall(323, 282),
    "fanotify_init": SystemCall(300, 262),
    "init_module": SystemCall(175, 105),
    "finit_module": SystemCall(313, 273),
    "delete_module": SystemCall(176, 106),
    "kexec_load": SystemCall(246, 104),
    "kexec_file_load": SystemCall(320, 294),
    "reboot": SystemCall(169, 142),
    "swapon": SystemCall(167, 224),
    "swapoff": SystemCall(168, 225),
    "settimeofday": SystemCall(164, 170),
    "clock_settime": SystemCall(227, 112),
    "clock_adjtime": SystemCall(305, 266),
    "adjtimex": SystemCall(159, 171),
    "sethostname": SystemCall(170, 161),
    "setdomainname": SystemCall(171, 162),
    "acct": SystemCall(163, 89),
    "quotactl": SystemCall(179, 60),
    "quotactl_fd": _new(443),
    "add_key": SystemCall(248, 217),
    "request_key": SystemCall(249, 218),
    "keyctl": SystemCall(250, 219),
    "syslog": SystemCall(103, 116),
    "personality": SystemCall(135, 92),
    "iopl": SystemCall(172, None),
    "ioperm": SystemCall(173, None),
    "modify_ldt": SystemCall(154, None),
}
"""They fail with EPERM, whatever their arguments are."""

CLONE = SystemCall(56, 220)
CLONE3 = _new(435)
PRCTL = SystemCall(157, 167)
PRLIMIT64 = SystemCall(302, 261)
SCHED_SETAFFINITY = SystemCall(203, 122)

SIGNALS = {
    "kill": SystemCall(62, 129),
    "tkill": SystemCall(200, 130),
    "tgkill": SystemCall(234, 131),
}
"""They fail with EPERM, unless their first argument, the id of a process, is that of the calling process."""

SECCOMP = SystemCall(317, 277)

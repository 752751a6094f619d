"""Several machines on one: network namespaces on a bridge, each with processes, an address and a `/tmp` of its own.

    hub (10.53.0.254)  --bridge--  node 1 (10.53.0.1), node 2 (10.53.0.2), node 3 (10.53.0.3)

Namespaces are named after the process that made them, so that those of a run that was killed are found and removed.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.workshop import Workshop, await_true

PREFIX = "policy-test"
NETWORK, HUB = "10.53.0", "10.53.0.254"

CLONE_NEWNET = 0x40000000


def why_impossible() -> str | None:
    """Why this machine cannot have network namespaces; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "network namespaces need ip and unshare (Debian: iproute2, util-linux)"
    return None


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def pids(namespace: str) -> list[int]:
    """The processes in a namespace; none if there is no such namespace."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split() if int(pid) != os.getpid()]


class Network:
    """The hub and its nodes. This process is in the hub while the context is open, and so is whatever it starts."""

    def __init__(self, nodes: int) -> None:
        self.name = f"{PREFIX}-{os.getpid()}"
        self.namespaces = [f"{self.name}-{index}" for index in range(nodes + 1)]
        self.hub = self.namespaces[0]

    @contextlib.contextmanager
    def up(self) -> Iterator["Network"]:
        _remove_abandoned()
        with Path("/proc/thread-self/ns/net").open() as outside:
            try:
                self._build()
                with Path("/run/netns", self.hub).open() as inside:
                    _enter(inside.fileno())
                yield self
            finally:
                _enter(outside.fileno())
                for namespace in self.namespaces:
                    remove(namespace)

    def _build(self) -> None:
        for namespace in self.namespaces:
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        ip("-n", self.hub, "addr", "add", f"{HUB}/24", "dev", "br0")
        ip("-n", self.hub, "link", "set", "br0", "up")
        for index, namespace in enumerate(self.namespaces[1:], 1):
            link = f"v{index}"
            ip("-n", self.hub, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            ip("-n", self.hub, "link", "set", link, "master", "br0", "up")
            ip("-n", namespace, "addr", "add", f"{NETWORK}.{index}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "route", "add", "default", "via", HUB)


class Machine:
    """A node's namespace, with the directory that its processes see as `/tmp`."""

    def __init__(self, network: Network, index: int, directory: Path, environment: dict[str, str]) -> None:
        self.index, self.namespace = index, network.namespaces[index]
        self.address = f"{NETWORK}.{index}"
        self.directory = directory
        (directory / "home").mkdir(parents=True)
        own = {"HOME": "/tmp/home", "TMPDIR": "/tmp", "XDG_CACHE_HOME": "/tmp/home/.cache"}
        self.shop = Workshop(directory, {**environment, **own})

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command in the namespace, with `/tmp` as it is elsewhere."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def start(self, *command: str, log: str, enter: bool = False) -> "subprocess.Popen[str]":
        """Start a command on the machine; `enter` for one beside its Ray, which was started before."""
        if enter:
            raylet = self.processes("raylet")[0].pid
            inside = ["nsenter", "-t", str(raylet), "-m", "-n", "sh", "-c", 'cd /tmp/home && exec "$@"', "sh"]
            return self.shop.start(*inside, *command, log=log)
        script = 'mount --make-rprivate / && mount --bind "$0" /tmp && cd /tmp/home && exec "$@"'
        alone = ["unshare", "--mount", "sh", "-c", script, str(self.directory)]
        return self.shop.start(*self.inside(*alone, *command), log=log)

    def processes(self, name: str) -> list[psutil.Process]:
        """The machine's processes of that name."""
        return [each for each in self.shop.processes() if _name(each) == name]

    def power_off(self) -> None:
        """Kill all processes of the machine at once, but for load that stands for other machines' beside it."""
        for pid in self._own():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.shop.end()
        # All machines are in one PID namespace, so Ray would take the others' processes for its own that still run.
        (self.directory / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        await_true(lambda: not self._own(), f"all processes of {self.namespace} are gone")

    def _own(self) -> list[int]:
        return [pid for pid in pids(self.namespace) if "tests.faults.load" not in _command(pid)]

    def listeners(self) -> dict[int, tuple[str, str]]:
        """The address and the process of each TCP port on which the machine listens."""
        found = {}
        for line in subprocess.run(
            self.inside("ss", "-Hltnp"), check=True, capture_output=True, text=True
        ).stdout.splitlines():
            address, _, port = line.split()[3].rpartition(":")
            process = re.search(r'\("([^"]+)"', line)
            found[int(port)] = address, process[1] if process else "?"
        return found


def remove(namespace: str) -> None:
    """Kill the processes of a namespace, and remove it."""
    for pid in pids(namespace):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _remove_abandoned() -> None:
    for namespace in ip("netns", "list").splitlines():
        name = namespace.split()[0]
        made = re.fullmatch(rf"{PREFIX}-(\d+)-\d+", name)
        if made and not psutil.pid_exists(int(made[1])):
            remove(name)


def _enter(descriptor: int) -> None:
    """Move this thread, and the threads and processes that it starts, into a network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""

"""What code that is not trusted attempts, as an environment, and as an ONNX Runtime that a graph has taken over."""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


class Attempts:
    """Each method is one attempt. It raises OSError or MemoryError if it is refused."""

    def __init__(self, secret: str, port: int, server: int) -> None:
        """Take the path of a secret file, a port that accepts connections, and the process id of the server."""
        self.secret, self.port, self.server = Path(secret), port, server

    def read_a_secret_file(self) -> None:
        self.secret.read_text()

    def read_a_file_beside_the_modules(self) -> None:
        (Path(__file__).parents[3] / "pyproject.toml").read_text()

    def read_a_secret_file_in_a_thread(self) -> None:
        refused: list[OSError] = []

        def read() -> None:
            try:
                self.secret.read_text()
            except OSError as error:
                refused.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        if refused:
            raise refused[0]

    def list_the_directory_of_a_secret(self) -> None:
        list(self.secret.parent.iterdir())

    def read_the_environment_of_the_server(self) -> None:
        Path(f"/proc/{self.server}/environ").read_bytes()

    def read_the_memory_of_the_server(self) -> None:
        os.close(os.open(f"/proc/{self.server}/mem", os.O_RDONLY))

    def trace_the_server(self) -> None:
        _call("ptrace", 16, self.server, 0, 0)  # PTRACE_ATTACH

    def signal_the_server(self) -> None:
        os.kill(self.server, 0)

    def signal_the_group(self) -> None:
        os.kill(0, 0)

    def limit_the_server(self) -> None:
        resource.prlimit(self.server, resource.RLIMIT_NOFILE, resource.prlimit(self.server, resource.RLIMIT_NOFILE))

    def slow_the_server(self) -> None:
        os.setpriority(os.PRIO_PROCESS, self.server, os.getpriority(os.PRIO_PROCESS, self.server))

    def write_outside(self) -> None:
        (self.secret.parent / "written").write_text("gotcha")

    def replace_a_file(self) -> None:
        self.secret.write_text("gotcha")

    def delete_a_file(self) -> None:
        self.secret.unlink()

    def change_the_mode_of_a_file(self) -> None:
        self.secret.chmod(0o666)

    def change_the_times_of_a_file(self) -> None:
        os.utime(self.secret)

    def write_a_module(self) -> None:
        Path(__file__).with_name("planted.py").write_text("gotcha")

    def connect_to_a_port(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), 5).close()

    def listen_on_a_port(self) -> None:
        socket.create_server(("127.0.0.1", 0)).close()

    def open_a_unix_socket(self) -> None:
        socket.socket(socket.AF_UNIX).close()

    def start_a_program(self) -> None:
        subprocess.run(["/bin/true"], check=True)

    def become_a_program(self) -> None:
        os.execv("/bin/true", ["/bin/true"])

    def fork(self) -> None:
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)

    def clone_without_the_library(self) -> None:
        if not (child := _call("clone", signal.SIGCHLD, 0, 0, 0, 0)):
            os._exit(0)
        os.waitpid(child, 0)

    def survive_the_server(self) -> None:
        _call("prctl", 1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG

    def raise_a_limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def allocate_memory(self) -> None:
        bytearray(3 << 30)

    def share_memory(self) -> None:
        mmap.mmap(-1, 12 << 30).close()

    def write_a_large_file(self) -> None:
        with tempfile.TemporaryFile() as file:
            os.truncate(file.fileno(), 1 << 30)

    def open_many_files(self) -> None:
        files = []
        try:
            files += [os.open(os.devnull, os.O_RDONLY) for _ in range(2000)]
        finally:
            os.closerange(100, 2000)

    def become_another_user(self) -> None:
        os.setuid(os.getuid())

    def make_a_namespace(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER
            raise OSError(ctypes.get_errno(), "unshare")

    def outcomes(self) -> dict[str, int]:
        """Return the number of the error that refused each attempt, 0 for those that succeeded."""
        return {name: _outcome(getattr(self, name)) for name in ATTEMPTS}


ATTEMPTS = [name for name in vars(Attempts) if not name.startswith("_") and name != "outcomes"]
NUMBERS = {"ptrace": 101, "clone": 56, "prctl": 157}


def _outcome(attempt: Callable[[], Any]) -> int:
    try:
        attempt()
    except MemoryError:
        return errno.ENOMEM
    except ValueError:  # Python's form of EPERM when a limit is raised
        return errno.EPERM
    except OSError as error:
        return error.errno or -1
    return 0


def _call(name: str, *arguments: int) -> int:
    """Make a system call of x86_64."""
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(NUMBERS[name], *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


class Hostile(gymnasium.Env[Any, Any]):
    """Makes all attempts in `reset`; its observation are their outcomes, then whether a temporary file was written."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-1e6, 1e6, (len(ATTEMPTS),), np.float32)

    def __init__(self, **where: Any) -> None:
        self._attempts = Attempts(**where)
        self.observation_space = gymnasium.spaces.Box(-1e6, 1e6, (len(ATTEMPTS) + 1,), np.float32)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        file = Path(tempfile.gettempdir(), "own")
        file.write_text("mine")
        numbers = [*self._attempts.outcomes().values(), int(file.read_text() == "mine")]
        return np.array(numbers, np.float32), {}

    def step(self, _: Any) -> Any:
        while True:
            pass


class Reporting(gymnasium.Env[Any, Any]):
    """Fails with the names of its environment variables."""

    action_space = observation_space = gymnasium.spaces.Discrete(2)

    def reset(self, **_: Any) -> Any:
        raise RuntimeError(" ".join(sorted(os.environ)))


class Flooding(gymnasium.Env[Any, Any]):
    """Writes an endless line to the pipe of the responses."""

    action_space = observation_space = gymnasium.spaces.Discrete(2)

    def reset(self, **_: Any) -> Any:
        pipes = [number for number in range(3, 20) if _is_pipe(number)]
        while True:
            os.write(pipes[0], b"x" * 65536)


def _is_pipe(number: int) -> bool:
    try:
        os.write(number, b"")
    except OSError:
        return False
    return True


gymnasium.register("Hostile-v0", Hostile)
gymnasium.register("Reporting-v0", Reporting)
gymnasium.register("Flooding-v0", Flooding)

"""What code in the real children of the server may not do: the environment of /play, and the trial of a new version."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from errno import EACCES, EFBIG, EMFILE, ENOENT, ENOMEM, EPERM
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from serving.play import process
from serving.play.errors import EnvironmentFailed
from serving.play.process import EnvironmentProcess
from serving.processes import child_environment
from serving.rollout.candidate_trial import TrialConditions, run_trial
from serving.rollout.errors import CandidateRejected
from serving.sandbox import landlock, seccomp
from serving.sandbox.limits import MAX_MORE_THREADS
from serving.sandbox.sandbox import log_layers
from serving.sandbox.system_calls import SECCOMP
from tests.serving.policies import CARTPOLE_BUNDLE
from tests.serving.sandbox import hostile
from tests.serving.sandbox.hostile import ATTEMPTS
from tests.workshop import await_true

HOSTILE = "tests.serving.sandbox.hostile"

REFUSED_WITH = {
    **dict.fromkeys(ATTEMPTS, EPERM),
    **dict.fromkeys([name for name in ATTEMPTS if name.startswith(("read_", "list_", "write_"))], EACCES),
    "replace_a_file": EACCES,
    "delete_a_file": EACCES,
    "allocate_memory": ENOMEM,
    "share_memory": ENOMEM,
    "write_a_large_file": EFBIG,
    "open_many_files": EMFILE,
}
"""The error of each attempt: EACCES is Landlock's, EPERM seccomp's."""

REMOVE = "from tests.serving.sandbox.old_kernel import remove; remove({})"

SECRETS = {"MLFLOW_TRACKING_PASSWORD": "hush", "AWS_SECRET_ACCESS_KEY": "hush", "RAY_AUTH_TOKEN": "hush", "MY_OWN": "x"}

pytestmark = pytest.mark.skipif(
    not (landlock.version() >= 6 and seccomp.is_available()), reason="the kernel lacks Landlock 6 or seccomp"
)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the hostile code aims at."""
    secret = tmp_path_factory.mktemp("secrets") / "token"
    secret.write_text("hush")
    with socket.create_server(("127.0.0.1", 0)) as listener, mock.patch.dict(os.environ, SECRETS):
        yield {"secret": str(secret), "port": listener.getsockname()[1], "server": os.getpid()}
    Path(hostile.__file__).with_name("planted.py").unlink(missing_ok=True)
    assert [file.name for file in secret.parent.iterdir()] == ["token"]
    assert secret.read_text() == "hush"


def play(env_id: str, *requests: dict[str, Any], **kwargs: Any) -> list[dict[str, Any]]:
    """Return the responses of an environment of `hostile` in the process of /play."""

    async def exchange() -> list[dict[str, Any]]:
        environment = EnvironmentProcess((HOSTILE,))
        try:
            described = {"environment": {"id": f"{HOSTILE}:{env_id}", "kwargs": kwargs}}
            return [await environment.request(request) for request in (described, *requests)]
        finally:
            environment.close()

    return asyncio.run(exchange())


def play_directories() -> set[Path]:
    return set(Path(os.environ["TMPDIR"]).glob("policy-play-*"))


@pytest.fixture(scope="module")
def of_environment(where: dict[str, Any], before: set[Path]) -> dict[str, int]:  # noqa: ARG001 - seen before it
    _, first = play("Hostile-v0", {"seed": 0}, **where)
    return dict(zip([*ATTEMPTS, "wrote"], map(int, first["observation"]), strict=True))


@pytest.fixture(scope="module")
def before() -> set[Path]:
    """The directories of other environments: a server that was killed leaves its own."""
    return play_directories()


@pytest.fixture(scope="module")
def of_trial(where: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcomes in the child that tries a version, whose ONNX Runtime a graph has taken over."""
    package = tmp_path_factory.mktemp("packages") / "onnxruntime"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import json, os\n"
        "from unittest.mock import Mock as SessionOptions\n"
        f"from {HOSTILE} import Attempts\n"
        "def InferenceSession(*_, **__):\n"
        f"    found = Attempts(**{where!r}).outcomes()\n"
        "    raise RuntimeError(json.dumps({**found, 'variables': sorted(os.environ)}))\n"
    )
    with mock.patch.object(sys, "path", [str(package.parent), *sys.path]), pytest.raises(CandidateRejected) as caught:
        run_trial(CARTPOLE_BUNDLE, TrialConditions(1 << 30, 30))
    found: dict[str, Any] = json.loads(str(caught.value)[str(caught.value).index("{") :])
    return found


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_environment_of_play_is_refused(of_environment: dict[str, int], attempt: str) -> None:
    assert of_environment[attempt] == REFUSED_WITH[attempt], os.strerror(of_environment[attempt])


def test_an_environment_of_play_writes_in_a_directory_that_is_deleted(
    of_environment: dict[str, int], before: set[Path]
) -> None:
    assert of_environment["wrote"]
    await_true(lambda: play_directories() <= before, "the directory is gone")


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_trial_of_a_version_is_refused(of_trial: dict[str, Any], attempt: str) -> None:
    # It has no directory to write in.
    expected = ENOENT if attempt == "write_a_large_file" else REFUSED_WITH[attempt]
    assert of_trial[attempt] == expected, os.strerror(of_trial[attempt])


def test_children_see_no_variables_but_those_of_libraries(of_trial: dict[str, Any]) -> None:
    with mock.patch.dict(os.environ, {**SECRETS, "OMP_NUM_THREADS": "1"}), pytest.raises(EnvironmentFailed) as caught:
        play("Reporting-v0")
    of_environment = re.search(r"RuntimeError: (.*)", str(caught.value))
    assert of_environment is not None
    for variables in (of_environment[1].split(), of_trial["variables"]):
        assert {"PATH", "PYTHONPATH", "OMP_NUM_THREADS"} <= set(variables)
        assert not SECRETS.keys() & set(variables)


def test_an_environment_that_floods_its_pipe_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_RESPONSE", 1 << 20)
    with pytest.raises(EnvironmentFailed, match="its process ended"):
        play("Flooding-v0")


def confined(script: str, *, before: str = "", cpu_s: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a script in a sandbox, which it enters after the script `before`."""
    prelude = (
        "import os, socket, subprocess, threading\nfrom pathlib import Path\n"
        "from serving.sandbox.sandbox import Sandbox, missing_layers\n"
        f"{before}\nSandbox(memory_bytes=1 << 30, file_bytes=1 << 20, cpu_s={cpu_s}).enter()\n"
    )
    command = [sys.executable, "-c", prelude + script]
    return subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)


def test_an_endless_loop_ends_with_its_cpu_time() -> None:
    assert confined("while True: pass", cpu_s=0.1).returncode == -signal.SIGKILL


def test_where_landlock_is_missing_seccomp_still_applies() -> None:
    script = "Path('/etc/hostname').read_text(); print(missing_layers()); socket.socket()"
    done = confined(script, before=REMOVE.format(landlock.CREATE_RULESET))
    assert done.stdout == """["Landlock, so they can read and write this user's files"]\n"""
    assert "PermissionError: [Errno 1]" in done.stderr


def test_where_seccomp_is_missing_landlock_still_applies(where: dict[str, Any]) -> None:
    script = (
        f"print(missing_layers())\n"
        f"for attempt in (lambda: Path({where['secret']!r}).read_text(), "
        f"lambda: socket.create_connection(('127.0.0.1', {where['port']}))):\n"
        f"    try: attempt()\n"
        f"    except PermissionError as error: print(error.errno)\n"
    )
    done = confined(script, before=REMOVE.format(SECCOMP.x86_64))
    assert done.stdout == f"['seccomp, so they can start processes and use the network']\n{EACCES}\n{EACCES}\n", done


def test_a_replica_logs_which_layers_there_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.sandbox")
    log_layers()
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(seccomp, "is_available", lambda: False)
    log_layers()
    prefix = "new versions are tried, and environments of /play run,"
    without_landlock = "without Landlock, so they can read and write this user's files"
    without_seccomp = "without seccomp, so they can start processes and use the network"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", f"{prefix} with Landlock and seccomp"),
        ("WARNING", f"{prefix} {without_landlock}; and {without_seccomp}"),
    ]


def test_a_bomb_of_threads_is_refused() -> None:
    script = (
        "threading.stack_size(1 << 16)\nwait = threading.Event()\n"
        "try:\n    while True: threading.Thread(target=wait.wait, daemon=True).start()\n"
        "except RuntimeError: print(threading.active_count(), flush=True)\nos._exit(0)"
    )
    threads = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    # The kernel exempts root from the limit.
    refused_at = int(confined(script, before="os.getuid() or os.setuid(65534)").stdout)
    assert refused_at < threads + MAX_MORE_THREADS + 500  # others may start threads meanwhile

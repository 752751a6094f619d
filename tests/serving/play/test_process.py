"""The environment's process ends with its session, and with its parent."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serving.play.errors import EnvironmentFailed
from serving.play.process import EnvironmentProcess, WritableDirectory
from tests.serving.play.viewer import environments
from tests.workshop import PROJECT, await_true, command_line

CARTPOLE = {"environment": {"id": "CartPole-v1", "kwargs": {}}}


def no_environments() -> bool:
    return not environments()


def test_the_environment_runs_in_a_nice_process_that_ends_when_closed() -> None:
    async def play() -> None:
        process = EnvironmentProcess()
        description = await process.request(CARTPOLE)
        assert description["scene"]["kind"] == "cartpole"
        (child,) = environments()
        assert child.nice() > psutil.Process().nice()
        with pytest.raises(EnvironmentFailed, match="invalid"):
            await process.request({"action": 9})
        process.close()

    asyncio.run(play())
    await_true(no_environments, "the process is gone", 5)
    await_true(lambda: not any(thread.name.startswith("play") for thread in threading.enumerate()), "so is the thread")


def test_a_process_that_cannot_be_started_is_an_error_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def play() -> None:
        process = EnvironmentProcess()
        with pytest.raises(EnvironmentFailed, match="its process ended"):
            await process.request(CARTPOLE)
        process.close()

    asyncio.run(play())


def test_closing_while_the_environment_starts_leaves_no_process() -> None:
    async def begin() -> None:
        process = EnvironmentProcess()
        pending = asyncio.ensure_future(process.request(CARTPOLE))
        await asyncio.sleep(0)
        process.close()
        with pytest.raises(EnvironmentFailed):
            await pending

    asyncio.run(begin())
    await_true(no_environments, "the process is gone", 5)


@pytest.mark.parametrize("kill", [psutil.Process.kill, psutil.Process.terminate])
def test_the_process_dies_with_its_parent(kill: Callable[[psutil.Process], None]) -> None:
    script = f"""if True:
        import asyncio, time
        from serving.play.process import EnvironmentProcess
        process = EnvironmentProcess()
        asyncio.run(process.request({CARTPOLE!r}))
        print("up", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        (child,) = environments(parent.pid)
        kill(psutil.Process(parent.pid))
    await_true(lambda: not command_line(child), "the child is gone", 5)


def test_a_session_deletes_its_directory_and_those_of_replicas_that_were_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "from serving.play.process import WritableDirectory; WritableDirectory(); import os; os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False
    )
    (abandoned,) = tmp_path.iterdir()
    (abandoned / "file").touch()
    (tmp_path / "policy-play-link").symlink_to(abandoned)
    used = WritableDirectory()
    assert not abandoned.exists()
    another = WritableDirectory()
    assert used.path.exists()
    for directory in (used, another):
        directory.remove()
    assert [each.name for each in tmp_path.iterdir()] == ["policy-play-link"]

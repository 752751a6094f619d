"""Real processes: what becomes of them when a viewer, or their parent, is gone."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import psutil
import pytest

from serving.play.errors import EnvironmentFailed
from serving.play.process import EnvironmentProcess
from tests.serving.play.viewer import environments
from tests.workshop import PROJECT, await_true

CARTPOLE = {"environment": {"id": "CartPole-v1", "kwargs": {}}}


def alone() -> bool:
    return not environments()


def test_an_environment_is_played_in_a_nice_process_that_ends_when_closed() -> None:
    async def play() -> None:
        process = EnvironmentProcess()
        stage = await process.ask(CARTPOLE)
        assert stage["scene"]["kind"] == "cartpole"
        (child,) = environments()
        assert child.nice() == 10
        with pytest.raises(EnvironmentFailed, match="invalid"):
            await process.ask({"action": 9})
        process.close()

    asyncio.run(play())
    await_true(alone, "the process is gone", 5)
    await_true(lambda: not any(thread.name.startswith("play") for thread in threading.enumerate()), "so is the thread")


def test_a_session_that_ends_while_its_environment_starts_leaves_no_process() -> None:
    async def begin() -> None:
        process = EnvironmentProcess()
        asking = asyncio.ensure_future(process.ask(CARTPOLE))
        await asyncio.sleep(0)
        process.close()
        with pytest.raises(EnvironmentFailed):
            await asking

    asyncio.run(begin())
    await_true(alone, "the process is gone", 5)


@pytest.mark.parametrize("kill", [psutil.Process.kill, psutil.Process.terminate])
def test_it_dies_with_its_parent(kill: Callable[[psutil.Process], None]) -> None:
    script = f"""if True:
        import asyncio, time
        from serving.play.process import EnvironmentProcess
        process = EnvironmentProcess()
        asyncio.run(process.ask({CARTPOLE!r}))
        print("up", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        (child,) = environments(parent.pid)
        kill(psutil.Process(parent.pid))
    await_true(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child is gone", 5)

"""What the side process does, and what is done here in its place."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.config import TrainConfig
from pipeline.evaluation import evaluation
from pipeline.training.worker_process import SideProcess


def answer_with(value):
    return os.getpid(), value


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
    return os.getpid()


def fail_elsewhere(here):
    if os.getpid() != here:
        raise ValueError
    return "done here"


@pytest.fixture(scope="module")
def side():
    with SideProcess() as process:
        process.begin(TrainConfig())
        yield process


def test_a_call_is_made_in_another_process(side):
    pid, value = side.call(answer_with, "asked").result()
    assert pid != os.getpid()
    assert value == "asked"


def test_while_it_is_busy_calls_are_made_here(side, tmp_path):
    first = side.call(wait_for, tmp_path / "go")
    assert not first.is_answered
    second = side.call(answer_with, 2)
    assert second.is_answered
    assert second.result() == (os.getpid(), 2)
    (tmp_path / "go").touch()
    assert first.result() != os.getpid()
    assert side.call(answer_with, 3).result()[0] != os.getpid()


def test_what_fails_there_is_done_here(side):
    assert side.call(fail_elsewhere, os.getpid()).result() == "done here"
    with pytest.raises(ZeroDivisionError):
        side.call(divmod, 1, 0).result()


def test_one_that_is_not_needed_is_not_started():
    with SideProcess() as process:
        process.begin(TrainConfig(num_env_runners=1))
        assert not process.has_begun
        assert process.call(answer_with, 1).result() == (os.getpid(), 1)


def test_ctrl_c_does_not_reach_it_and_its_death_costs_nothing(tmp_path):
    with SideProcess() as process:
        process.begin(TrainConfig())
        pid, _ = process.call(answer_with, 1).result()
        os.kill(pid, signal.SIGINT)
        assert process.call(answer_with, 2).result() == (pid, 2)
        cut_short = process.call(wait_for, tmp_path / "never")
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "never").touch()
        assert cut_short.result() == os.getpid()
        assert process.call(answer_with, 3).result() == (os.getpid(), 3)


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit"])
def test_it_ends_with_the_program(end):
    script = (
        "import os, signal; from pipeline.config import TrainConfig\n"
        "from pipeline.training.worker_process import SideProcess\n"
        "with SideProcess() as side:\n"
        "    side.begin(TrainConfig())\n"
        f"    print(side.call(os.getpid).result(), flush=True)\n    {end}"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
        assert time.monotonic() < deadline, "it outlived the program"
        time.sleep(0.05)


def test_where_episodes_are_played_changes_nothing(side, cartpole, build_policy):
    policy = build_policy(cartpole)
    beside = evaluation.play_beside(side, policy, cartpole, 7, first_seed=5)
    alone = SideProcess()
    alone._process = side._process  # one that has begun, and takes no calls
    assert beside == evaluation.play_beside(alone, policy, cartpole, 7, first_seed=5)
    assert beside == evaluation.play_beside(SideProcess(), policy, cartpole, 7, first_seed=5)
    assert len(beside.returns) == 7

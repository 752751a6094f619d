"""The worker process runs calls beside training, and this process runs the calls that it cannot."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.evaluation import evaluation
from pipeline.evaluation.player import Player
from pipeline.training import worker_process
from pipeline.training.worker_process import WorkerProcess


def pid_and(value):
    return os.getpid(), value


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
    return os.getpid()


def hold_the_gil(seconds):
    ctypes.PyDLL(None).sleep(seconds)


def fail_unless_in(pid):
    if os.getpid() != pid:
        raise ValueError
    return "ran here"


@pytest.fixture(scope="module")
def worker():
    with WorkerProcess() as process:
        process.start(TrainConfig())
        yield process


def test_a_call_runs_in_the_worker(worker):
    pid, value = worker.submit(pid_and, "value").result()
    assert pid != os.getpid()
    assert value == "value"


def test_calls_run_here_while_the_worker_is_busy(worker, tmp_path):
    first = worker.submit(wait_for, tmp_path / "go")
    assert not first.done()
    second = worker.submit(pid_and, 2)
    assert second.done()
    assert second.result() == (os.getpid(), 2)
    (tmp_path / "go").touch()
    assert first.result() != os.getpid()
    assert worker.submit(pid_and, 3).result()[0] != os.getpid()


def test_a_call_that_takes_longer_than_the_timeout_runs_here(worker, tmp_path):
    stuck = worker.submit(wait_for, tmp_path / "go")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stuck, "_run_here", lambda: "ran here")
        assert stuck.result(timeout=0.05) == "ran here"
    (tmp_path / "go").touch()


def test_a_call_that_fails_in_the_worker_runs_here(worker):
    assert worker.submit(fail_unless_in, os.getpid()).result() == "ran here"
    with pytest.raises(ZeroDivisionError):
        worker.submit(divmod, 1, 0).result()


def test_an_optional_call_that_ends_the_worker_does_not_run_here():
    with WorkerProcess() as process:
        process.start(TrainConfig())
        pending = process.submit_optional(os._exit, 3)
        with pytest.raises(BrokenExecutor):
            pending.result()
        assert process.submit_optional(pid_and, 1).result() == (os.getpid(), 1)


def test_a_result_is_computed_once_and_only_when_it_is_needed(tmp_path):
    with WorkerProcess() as unstarted:
        pending = unstarted.submit((tmp_path / "made").mkdir)
        assert not (tmp_path / "made").exists()
        assert pending.result() == pending.result()


def test_on_one_core_no_worker_starts(monkeypatch):
    monkeypatch.setattr(worker_process, "available_cpus", lambda: 1)
    with WorkerProcess() as process:
        process.start(TrainConfig())
        assert not process.is_started
        assert process.submit(pid_and, 1).result() == (os.getpid(), 1)


def test_a_worker_starts_beside_environment_runners_which_wait_during_evaluations():
    with WorkerProcess() as process:
        process.start(TrainConfig(num_env_runners=1))
        assert process.is_started


def test_the_worker_ignores_ctrl_c_and_its_death_loses_no_call(tmp_path):
    with WorkerProcess() as process:
        process.start(TrainConfig())
        pid, _ = process.submit(pid_and, 1).result()
        assert pid != os.getpid()
        assert signal.SIGINT in process.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
        os.kill(pid, signal.SIGINT)
        assert process.submit(pid_and, 2).result() == (pid, 2)
        unfinished = process.submit(wait_for, tmp_path / "go")
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert unfinished.result() == os.getpid()
        assert process.submit(pid_and, 3).result() == (os.getpid(), 3)


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit"])
def test_the_worker_ends_with_the_program_even_if_it_is_busy(end):
    script = (
        "import os, signal, time; from pipeline.config import TrainConfig\n"
        "from pipeline.training.worker_process import WorkerProcess\n"
        "with WorkerProcess() as worker:\n"
        "    worker.start(TrainConfig())\n"
        "    print(worker.submit(os.getpid).result(), flush=True)\n"
        "    worker.submit(time.sleep, 60)\n"
        f"    {end}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the worker outlived the program"
        time.sleep(0.05)
    assert not done.stderr


def test_a_worker_that_holds_the_gil_ends_at_once():
    with WorkerProcess() as process:
        process.start(TrainConfig())
        process.submit(os.getpid).result()
        process.submit(hold_the_gil, 30)
        time.sleep(0.5)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10


def test_an_evaluation_is_the_same_wherever_its_halves_are_played(worker, cartpole, build_policy):
    player = Player.exportable(build_policy(cartpole))
    here = evaluation.play_in_halves(WorkerProcess(), player, cartpole, 7, first_seed=5)
    assert here == evaluation.play_in_halves(worker, player, cartpole, 7, first_seed=5)
    assert here == evaluation.play_in_halves(None, player, cartpole, 7, first_seed=5)
    assert len(here.returns) == 7

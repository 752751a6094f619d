import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.policy.errors import InferenceTimeout, PolicyFailed
from serving.policy.guards import watchdog
from serving.policy.guards.watchdog import CallingThread, Guard, guarded
from serving.policy.policy import Policy
from tests.serving.failing import FAILING, FATAL_OBSERVATION

FATAL = np.array([FATAL_OBSERVATION], np.float32)
SAFE = np.zeros((1, 4), np.float32)


@pytest.fixture
def looping() -> Policy:
    return Policy.load(FAILING["inference_timeout"], guard=Guard(0.2, "a_version"))


def test_a_call_that_takes_too_long_is_stopped_and_the_next_one_computes(looping: Policy) -> None:
    for _ in range(2):
        with pytest.raises(InferenceTimeout, match=r"^the policy computed for longer than 0\.2 s and was stopped$"):
            looping.act(FATAL)
        assert looping.act(SAFE).tolist() == [0]


def test_a_call_in_another_thread_is_stopped_while_this_one_computes(looping: Policy) -> None:
    found: list[object] = []

    def compute() -> None:
        try:
            found.append(looping.act(FATAL))
        except InferenceTimeout as error:
            found.append(error)

    thread = threading.Thread(target=compute)
    thread.start()
    while thread.is_alive():
        assert looping.act(SAFE).tolist() == [0]
    assert isinstance(found[0], InferenceTimeout)


def test_an_error_of_the_graph_is_no_timeout() -> None:
    policy = Policy.load(FAILING["output_not_finite"], guard=Guard(60))
    with pytest.raises(PolicyFailed, match="log has the reason") as caught:
        policy.act(np.zeros((1, 3), np.float32))
    assert "InvalidArgument" in caught.value.details


def test_the_frame_of_a_call_has_the_name_of_the_policy() -> None:
    frames: list[str] = []

    def run(*_: Any) -> list[Any]:
        frames.append(sys._getframe(1).f_code.co_name)
        return []

    guarded(run, Guard(1.0, "version_5_ab"))((), {})
    assert frames == ["version_5_ab"]


class Options:
    terminate = False


def watched(thread: CallingThread, seconds: float, compute: Callable[[], None]) -> bool:
    """Whether a call with a limit of a second is stopped after so many seconds, in which the thread does `compute`."""
    options = Options()
    thread.call = options, 1.0, 100.0
    thread.check(100.0)
    compute()
    thread.check(100.0 + seconds)
    return options.terminate


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize(
    ("seconds", "computed_s", "is_stopped"),
    [(1.1, 0.8, True), (0.9, 0.8, False), (30.0, 0.5, False), (30.0, 0.0, False)],
    ids=["too long", "not yet", "on a busy machine", "of a stopped process"],
)
def test_only_a_call_that_computes_is_stopped(seconds: float, computed_s: float, *, is_stopped: bool) -> None:
    assert watched(CallingThread(), seconds, lambda: busy(computed_s)) is is_stopped


def test_what_a_thread_computed_before_a_call_does_not_count() -> None:
    thread = CallingThread()
    thread.call = Options(), 1.0, 90.0
    thread.check(90.0)
    busy(0.8)
    assert not watched(thread, 1.1, lambda: None)


def test_a_thread_that_has_ended_is_watched_no_more() -> None:
    dog = watchdog.Watchdog()
    thread = threading.Thread(target=dog.register)
    thread.start()
    thread.join()
    deadline = time.monotonic() + 10
    while len(dog._threads) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(dog._threads) == 0


STOPPED = """
import numpy as np
from serving.policy.guards.watchdog import Guard
from serving.policy.policy import Policy
from tests.serving.policies import CARTPOLE_BUNDLE
policy = Policy.load(CARTPOLE_BUNDLE, guard=Guard(0.1))
observations = np.zeros((200_000, 4), np.float32)
print("ready", flush=True)
for _ in range(200):
    policy.act(observations)
print("done", flush=True)
"""


def test_a_process_that_was_stopped_during_its_calls_has_no_timeout() -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.2)  # twice the limit
        os.kill(process.pid, signal.SIGCONT)
    assert process.stdout.read() == "done\n"
    assert process.wait(30) == 0

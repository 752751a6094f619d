"""A first signal interrupts at once, or where deferring code checks for it; a second Ctrl-C does not wait for that."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from pipeline import signals
from pipeline.errors import Interrupted
from pipeline.signals import deferred, interruptible

pytestmark = pytest.mark.usefixtures("hangup")

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def signal_that_interrupts(body):
    """Run a function within `interruptible`, and return the name of the signal that interrupts it."""

    def run():
        with interruptible():
            body()

    with pytest.raises(Interrupted) as caught:
        run()
    return caught.value.signal_name


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_raises_at_once(number):
    def body():
        signal.raise_signal(number)
        pytest.fail("the signal did not raise")

    assert signal_that_interrupts(body) == number.name


def test_blocks_in_other_threads_defer_nothing():
    """Two blocks that overlap would leave what the other one found."""
    first, second = threading.Event(), threading.Event()

    def one():
        with deferred():
            first.set()
            second.wait(5)

    def other():
        first.wait(5)
        with deferred():
            second.set()
            threads[0].join(5)

    threads = [threading.Thread(target=run) for run in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    test_the_first_signal_raises_at_once(signal.SIGINT)


@pytest.mark.parametrize("number", NUMBERS)
def test_within_deferred_a_signal_raises_at_the_next_check(number):
    def body():
        with deferred():
            signal.raise_signal(number)
            assert signals.received() == number.name
            signals.check()
            pytest.fail("the check did not raise")

    assert signal_that_interrupts(body) == number.name


def test_the_end_of_deferred_is_a_check():
    reached = []

    def body():
        with deferred():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end of the block")
        pytest.fail("the end of the block did not raise")

    assert signal_that_interrupts(body) == "SIGINT"
    assert reached == ["the end of the block"]


@pytest.mark.parametrize("number", NUMBERS)
def test_within_deferred_a_wait_without_end_is_left_after_the_longest_time(number):
    def body():
        with deferred(longest_s=0.01):
            signal.raise_signal(number)
            threading.Event().wait(600)
            pytest.fail("the wait was not left")

    assert signal_that_interrupts(body) == number.name
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_check_before_the_longest_time_is_over_cancels_it():
    def body():
        with deferred(longest_s=600):
            signal.raise_signal(signal.SIGTERM)

    assert signal_that_interrupts(body) == "SIGTERM"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_error_within_deferred_is_not_replaced():
    with pytest.raises(ValueError, match="its own"), deferred():
        raise ValueError("its own")


def test_the_sigterm_that_mlflow_run_sends_after_ctrl_c_is_ignored():
    def body():
        with deferred():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    assert signal_that_interrupts(body) == "SIGINT"


def test_a_second_ctrl_c_within_deferred_raises_at_once():
    def body():
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second signal did not raise")

    assert signal_that_interrupts(body) == "SIGTERM"


def test_a_ctrl_c_during_the_cleanup_kills_the_process():
    script = """
import signal
from pipeline.signals import deferred, interruptible
with interruptible(), deferred():
    try:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        print("cleanup", flush=True)
        signal.raise_signal(signal.SIGINT)
        print("not reached", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stdout == "cleanup\n"


class Collected:
    """Receives a signal while it is collected, where Python drops exceptions."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_an_interruption_that_python_drops_is_raised_by_the_next_check():
    def body():
        Collected()
        signals.check()

    assert signal_that_interrupts(body) == "SIGTERM"


def test_an_interruption_that_python_drops_is_delivered_again():
    def body():
        Collected()
        threading.Event().wait(10)
        pytest.fail("the signal was lost")

    assert signal_that_interrupts(body) == "SIGTERM"


def test_an_interruption_that_python_drops_within_deferred_waits_for_the_next_check():
    def body():
        with deferred():
            Collected()
            threading.Event().wait(0.2)  # longer than it takes to deliver a signal again
            reached.append("the end of the block")

    reached = []
    assert signal_that_interrupts(body) == "SIGTERM"
    assert reached == ["the end of the block"]


@pytest.mark.parametrize("number", NUMBERS)
def test_within_immediate_a_signal_raises_at_once_although_it_is_deferred(number):
    def body():
        with deferred(), signals.immediate():
            signal.raise_signal(number)
            pytest.fail("the signal did not raise")

    assert signal_that_interrupts(body) == number.name


def test_a_second_ctrl_c_raises_while_the_first_one_of_immediate_is_handled():
    def body():
        with deferred():
            with pytest.raises(Interrupted), signals.immediate():
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second signal did not raise")

    assert signal_that_interrupts(body) == "SIGINT"


def test_without_a_signal_the_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible(), deferred():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signals.received() is None


@pytest.mark.parametrize("replacement", [ImportError, KeyboardInterrupt])  # by an import, by Ray's native code
def test_an_interruption_that_a_library_replaces_leaves_as_interrupted(replacement):
    def body():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise replacement from None

    assert signal_that_interrupts(body) == "SIGTERM"


def test_an_error_without_a_signal_is_not_replaced():
    with pytest.raises(ImportError), interruptible():
        raise ImportError


def test_the_death_of_mlflow_run_counts_as_sigterm(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setattr(signals, "_PARENT_POLL_S", 0.01)
    parents = iter([os.getppid()])
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))

    def body():
        threading.Event().wait(10)
        pytest.fail("the loss of the parent was not noticed")

    assert signal_that_interrupts(body) == "SIGTERM"

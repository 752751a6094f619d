"""A first signal can wait for its turn; a second Ctrl-C cannot."""

import signal
import threading

import pytest

from pipeline.errors import Interrupted
from pipeline.signals import deferred, interruptible, recognised


def test_the_first_signal_interrupts():
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        signal.raise_signal(signal.SIGTERM)


class Steps(list):
    """What was reached while signals were deferred."""

    def take(self, *numbers):
        with interruptible(), deferred():
            for number in numbers:
                signal.raise_signal(number)
            self.append("went on")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_interrupts_at_the_end(number):
    steps = Steps()
    with pytest.raises(Interrupted, match=number.name):
        steps.take(number)
    assert steps == ["went on"]


def test_the_sigterm_that_mlflow_run_sends_after_ctrl_c_changes_nothing():
    steps = Steps()
    with pytest.raises(Interrupted, match="SIGINT"):
        steps.take(signal.SIGINT, signal.SIGTERM)
    assert steps == ["went on"]


def test_a_second_ctrl_c_interrupts_at_once():
    steps = Steps()
    with pytest.raises(Interrupted):
        steps.take(signal.SIGINT, signal.SIGINT)
    assert not steps


class Collected:
    """Is interrupted while it is collected, where Python drops exceptions."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def collect_and_wait():
    with interruptible():
        Collected()
        threading.Event().wait(10)
        pytest.fail("the signal was lost")


def test_an_interruption_that_python_drops_is_raised_again():
    with pytest.raises(Interrupted, match="SIGTERM"):
        collect_and_wait()


def test_without_a_signal_everything_is_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        within = signal.getsignal(signal.SIGTERM)
        with deferred():
            pass
        assert signal.getsignal(signal.SIGTERM) is within
    assert signal.getsignal(signal.SIGTERM) is before


def cut_short(renamed):
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise renamed from None


@pytest.mark.parametrize("renamed", [ImportError, KeyboardInterrupt])  # by a module half imported, by Ray's native code
def test_an_interruption_that_a_library_renamed_is_recognised(renamed):
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible(), recognised():
        cut_short(renamed)


def test_an_error_of_its_own_stays_what_it_is():
    with pytest.raises(ImportError), interruptible(), recognised():
        raise ImportError

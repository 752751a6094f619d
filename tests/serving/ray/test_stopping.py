import os
import signal
import subprocess
import sys
import threading

import pytest

from serving.ray.stopping import Stop, hangup_blocked, restore_handlers, stop_on_signals

pytestmark = pytest.mark.usefixtures("hangup")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises_stop_and_later_ones_are_ignored(signum: signal.Signals) -> None:
    with stop_on_signals():
        with pytest.raises(Stop) as caught:
            os.kill(os.getpid(), signum)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert caught.value.signum == signum


class Collected:
    """Receives a signal while it is collected, where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_stop_that_python_drops_is_delivered_again() -> None:
    with stop_on_signals():
        Collected()
        with pytest.raises(Stop):
            threading.Event().wait(10)


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_handlers_that_other_code_installs_are_removed_unless_it_raises() -> None:
    with stop_on_signals():
        ours = signal.getsignal(signal.SIGTERM)
        with restore_handlers():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) == ours
        with pytest.raises(Stop), restore_handlers():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, "cleanup is not interrupted"


def test_a_hangup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_that_are_started_with_hangup_blocked_survive_it_and_this_one_receives_it_afterwards() -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    outputs = []

    def start() -> None:
        with hangup_blocked():
            signal.raise_signal(signal.SIGHUP)  # to this thread: pytest's others do not block it
            outputs.append(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)

    with stop_on_signals(), pytest.raises(Stop):
        start()
    assert outputs == [b"alive\n"]

import os
import signal
import threading

import pytest

from serving.ray.stopping import Stop, restore_handlers, stop_on_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_raises_stop_and_later_ones_are_ignored(signum: signal.Signals) -> None:
    with stop_on_signals():
        with pytest.raises(Stop) as caught:
            os.kill(os.getpid(), signum)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
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

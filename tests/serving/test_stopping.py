import os
import signal

import pytest

from serving.stopping import Stop, signals_restored, stop_on_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_does_nothing(signum: signal.Signals) -> None:
    with signals_restored():
        stop_on_signals()
        with pytest.raises(Stop) as caught:
            os.kill(os.getpid(), signum)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.signum == signum


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_restored():
        stop_on_signals()
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before

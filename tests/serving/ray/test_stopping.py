import os
import signal

import pytest

from serving.ray.stopping import Stop, signals_kept, stop_on_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_does_nothing(signum: signal.Signals) -> None:
    with stop_on_signals():
        with pytest.raises(Stop) as caught:
            os.kill(os.getpid(), signum)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.signum == signum


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_another_installs_is_undone_unless_it_fails() -> None:
    with stop_on_signals():
        ours = signal.getsignal(signal.SIGTERM)
        with signals_kept():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) == ours
        with pytest.raises(Stop), signals_kept():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, "cleaning up goes on undisturbed"

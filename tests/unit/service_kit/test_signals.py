import signal
import threading
from collections.abc import Iterator

import pytest

from service_kit.signals import stop_on_signals


@pytest.fixture(autouse=True)
def hangup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_stops_and_the_second_hurries(number: signal.Signals) -> None:
    stop, hurry = threading.Event(), threading.Event()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with stop_on_signals(stop, on_second=hurry.set):
        signal.raise_signal(number)
        after_one = (stop.is_set(), hurry.is_set())
        signal.raise_signal(number)

    assert after_one == (True, False)
    assert hurry.is_set()


def test_a_hangup_that_was_ignored_from_the_start_stays_ignored() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGHUP)

    assert not stop.is_set()

"""Stop signals for processes of threads, apart from ``lifecycle``: those without an HTTP server import none."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(stop: threading.Event, on_second: Callable[[], None] | None = None) -> Iterator[None]:
    """Set the event on the first SIGTERM, SIGINT or SIGHUP; a second one calls ``on_second``, if given.

    SIGHUP comes when a terminal is closed; who started us with it ignored (``nohup``) wants us to go on.
    """

    def handle(_: int, __: FrameType | None) -> None:
        if stop.is_set() and on_second is not None:
            on_second()
        stop.set()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

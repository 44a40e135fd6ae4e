"""Starting and stopping processes: HTTP servers with signals and a bounded drain, threads that stop on an event."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

HTTP_GRACE = timedelta(seconds=10)
"""How long requests in flight may take to end after a stop signal."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything else starts, so that a taken port is the first error and not the last.

    Raises
    ------
    OSError
        The address is not ours or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


class _Server(uvicorn.Server):
    """Tells when the stop signal comes, before requests in flight are waited for."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def serve(app: ASGIApp, listener: socket.socket, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight end within the grace period.

    ``on_stop`` is called in the signal handler, for requests that wait on purpose and should now answer.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(HTTP_GRACE.total_seconds()),
        timeout_keep_alive=75,
        server_header=False,
    )
    server = _Server(config, on_stop)
    asyncio_run = asyncio.Runner(loop_factory=config.get_loop_factory())
    with asyncio_run:
        asyncio_run.run(server.serve(sockets=[listener]))


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

"""Starting and stopping HTTP servers.

One leaves in three phases, none of them longer than it was told:

1. *leaving*: it still accepts and answers, but each answer ends its connection and readiness says no. Proxies move to
   other replicas meanwhile, and no connection is left idle on which one of them might send its next request.
2. *draining*: the listener is closed; what is in flight, an upload perhaps, may end.
3. the rest is cut off, and the application closes what it opened.
"""

import asyncio
import ipaddress
import math
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service_kit.logging import get_logger

log = get_logger(__name__)

HTTP_GRACE = timedelta(seconds=10)
"""How long requests in flight may take to end after a stop signal."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


class Departure:
    """How far an HTTP server is on its way out; who answers looks at it. Use it inside the running event loop."""

    def __init__(self) -> None:
        self.has_begun = False
        """Whether it is on its way out."""
        self.drains = asyncio.Event()
        """Set when nothing new is accepted any more: a request that waits on purpose should answer now."""
        self.is_asked_for = False
        """Whether it is to begin."""

    def ask(self) -> None:
        """Have the server leave as a stop signal would, within a moment; its process then ends with status 0."""
        self.is_asked_for = True


class _Farewell:
    """Says on each answer of a server that leaves that its connection is over; the server then closes it."""

    def __init__(self, app: ASGIApp, departure: Departure) -> None:
        self._app = app
        self._departure = departure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if self._departure.has_begun and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_and_close)


class _Server(uvicorn.Server):
    """Leaves before it drains. The same signal again hurries: it ends the leaving, then the draining.

    Another signal does not: one Ctrl-C in a terminal reaches us itself, and as the SIGTERM of whoever started us.
    """

    def __init__(self, config: uvicorn.Config, departure: Departure, on_stop: Callable[[], None], leave: float) -> None:
        super().__init__(config)
        self._departure = departure
        self._on_stop = on_stop
        self._leave = leave
        self._gone_at = math.inf
        self._heard: set[int] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_repeated, is_draining = sig in self._heard, self.should_exit
        self._heard.add(sig)
        super().handle_exit(sig, frame)
        self.should_exit = is_draining or is_repeated or not self._leave or not self.started
        self.force_exit = is_draining and is_repeated
        self._begin()

    def _begin(self) -> None:
        if not self._departure.has_begun:
            self._departure.has_begun = True
            self._gone_at = time.monotonic() + self._leave

    async def on_tick(self, counter: int) -> bool:
        if self._departure.is_asked_for:
            self._begin()
        if time.monotonic() >= self._gone_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("server_drains", connections=len(self.server_state.connections))
        self._departure.drains.set()
        self._on_stop()
        await super().shutdown(sockets)


def serve(
    app: ASGIApp,
    listener: socket.socket,
    on_stop: Callable[[], None] = lambda: None,
    departure: Departure | None = None,
    leave: timedelta = timedelta(0),
    drain: timedelta = HTTP_GRACE,
) -> None:
    """Serve until SIGTERM, SIGINT or ``departure.ask()``, then leave; for ``leave`` and ``drain`` see the top.

    ``on_stop`` is called in the event loop when the draining begins, for requests that wait on purpose and should now
    answer. ``departure`` is what the application looks at.
    """
    way_out = departure or Departure()
    config = uvicorn.Config(
        _Farewell(app, way_out),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # a client's address is its connection's; what a header says of it is not ours to believe
        timeout_graceful_shutdown=math.ceil(drain.total_seconds()),
        timeout_keep_alive=75,
        server_header=False,
    )
    server = _Server(config, way_out, on_stop, leave.total_seconds())
    asyncio_run = asyncio.Runner(loop_factory=config.get_loop_factory())
    with asyncio_run:
        asyncio_run.run(server.serve(sockets=[listener]))

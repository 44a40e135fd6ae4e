"""Where workers dial in, over a unix socket and TCP: who is taken in, and who is given up."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from contracts.worker_protocol import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Hello,
    Refused,
    Welcome,
    gateway_proof,
    is_same_proof,
    worker_proof,
)
from online_gateway.durable_files import open_locked
from online_gateway.workers.connection import OnResults, WorkerConnection, WorkerEvents
from service_kit.logging import get_logger

__all__ = ["OnResults", "WorkerConnection", "WorkerEvents", "WorkerPort"]

log = get_logger(__name__)

_BEATS_PER_SILENCE = 5
_CLOSING_SECONDS = 2.0

Refusal = Callable[[str], str | None]
"""Why no worker is taken in for this pool; None: it is."""


class WorkerPort:
    """Takes workers in, over a unix socket and TCP.

    ``silence_seconds``: a worker that says nothing for so long is lost. ``stall_seconds``: so is one that lives and
    reads nothing of what waits for it; it is long, because a worker in the middle of one prediction reads nothing, and
    little waits for it: the data plane and the loading of generations both stop sending. ``refusal`` says why a pool
    takes no worker.
    """

    def __init__(
        self,
        token: str,
        events: WorkerEvents,
        on_results: OnResults,
        *,
        gateway_id: str,
        silence_seconds: float = 5.0,
        stall_seconds: float = 900.0,
        refusal: Refusal = lambda _pool: None,
    ) -> None:
        self.events = events
        self.on_results = on_results
        self._token = token
        self._gateway_id = gateway_id
        self._silence = silence_seconds
        self._stall = max(stall_seconds, silence_seconds)
        self._beat = silence_seconds / _BEATS_PER_SILENCE
        self._refusal = refusal
        self._by_id: dict[str, WorkerConnection] = {}
        self._open: set[WorkerConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._locks: list[tuple[int, Path]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._all_closed: asyncio.Future[None] | None = None

    async def listen_unix(self, path: Path) -> None:
        """Listen on a socket in the file system, which only this user may reach.

        Raises
        ------
        OSError
            EADDRINUSE where another gateway that lives listens there; or the folder cannot be written.
        """
        lock = _lock(path)
        self._locks.append((lock, path))
        loop = asyncio.get_running_loop()
        self._serve(await loop.create_unix_server(self._factory(), sock=_unix_socket(path)))

    async def listen_tcp(self, host: str, port: int) -> int:
        """Listen on an address; 0 takes a free port. The port.

        Raises
        ------
        OSError
            The address cannot be had.
        """
        server = await asyncio.get_running_loop().create_server(self._factory(), host, port)
        self._serve(server)
        return int(server.sockets[0].getsockname()[1])

    def connections(self) -> list[WorkerConnection]:
        """Every worker that has joined and is not lost."""
        return list(self._by_id.values())

    async def close(self) -> None:
        """Stop listening and close every connection; what was sent goes out first, within two seconds."""
        for server in self._servers:
            server.close()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._open):
            connection.close("the gateway ends")
        for abort in (False, True):
            if abort:
                for connection in list(self._open):
                    connection.abort("the gateway ends")
            if self._open:
                self._all_closed = asyncio.get_running_loop().create_future()
                await asyncio.wait([self._all_closed], timeout=_CLOSING_SECONDS)
        for lock, path in self._locks:
            path.unlink(missing_ok=True)
            os.close(lock)
        self._locks.clear()

    # What connections call

    def opened(self, connection: WorkerConnection) -> None:
        """It is there, unproven."""
        self._open.add(connection)

    def closed(self, connection: WorkerConnection) -> None:
        """Its transport is gone."""
        self._open.discard(connection)
        if not self._open and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)

    def refused(self, hello: Hello, nonce: bytes) -> Refused | None:
        """Why the worker is not taken in; None: it is."""
        if hello.version != PROTOCOL_VERSION:
            return Refused(
                f"The worker speaks version {hello.version} of the worker protocol, this gateway version "
                f"{PROTOCOL_VERSION}: run the same release on both sides.",
                is_final=True,
            )
        expected = worker_proof(self._token, nonce, hello.nonce, hello.pool, hello.worker_id)
        if len(hello.nonce) != NONCE_BYTES or not is_same_proof(hello.proof, expected):
            return Refused(
                "The worker's token is not the gateway's: compare WORKER_TOKEN on both sides.", is_final=True
            )
        reason = self._refusal(hello.pool) or self._taken(hello)
        return None if reason is None else Refused(reason, is_final=False)

    def _taken(self, hello: Hello) -> str | None:
        """Why it cannot have its id: else two workers of one id would throw each other out for ever."""
        there = self._by_id.get(hello.worker_id)
        if there is None or (there.host, there.pid) == (hello.host, hello.pid):
            return None
        return f"The process {there.pid} of {there.host} is the worker {hello.worker_id!r}: give this one another id."

    def welcome(self, connection: WorkerConnection, hello_nonce: bytes, nonce: bytes) -> None:
        """Take it in; an older connection of the same process makes room."""
        older = self._by_id.get(connection.worker_id)
        if older is not None:
            older.abort(f"a newer connection has its id, from {connection.peer}")
        self._by_id[connection.worker_id] = connection
        proof = gateway_proof(self._token, nonce, hello_nonce)
        connection.send(Welcome(self._gateway_id, proof, self._beat, self._silence))
        log.info(
            "worker_joined",
            worker_id=connection.worker_id,
            pool=connection.pool,
            host=connection.host,
            pid=connection.pid,
            peer=connection.peer,
        )
        self.events.joined(connection)

    def lost(self, connection: WorkerConnection, reason: str) -> None:
        """It was taken in and is gone."""
        if self._by_id.get(connection.worker_id) is connection:
            del self._by_id[connection.worker_id]
        log.info("worker_lost", worker_id=connection.worker_id, pool=connection.pool, reason=reason)
        self.events.lost(connection, reason)

    # The rest

    def _factory(self) -> Callable[[], WorkerConnection]:
        unproven: set[WorkerConnection] = set()
        return lambda: WorkerConnection(self, unproven)

    def _serve(self, server: asyncio.Server) -> None:
        self._servers.append(server)
        if self._timer is None:
            self._schedule()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._beat, self._tick, loop.time() + self._beat)

    def _tick(self, due: float) -> None:
        # Where this process itself stood still, what workers sent meanwhile is not yet read: they are judged next time.
        now = asyncio.get_running_loop().time()
        is_judged = now - due < self._beat
        for connection in self.connections():
            connection.beat(now, self._silence, self._stall, is_judged=is_judged)
        self._schedule()


def _lock(path: Path) -> int:
    """Hold the right to listen at a path; it ends with the process."""
    descriptor = open_locked(path.with_name(f"{path.name}.lock"))
    if descriptor is None:
        raise OSError(errno.EADDRINUSE, f"Another gateway listens on {path}")
    return descriptor


def _unix_socket(path: Path) -> socket.socket:
    """A bound socket; its address may be longer than the 107 bytes that the kernel takes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # the file that bind makes takes it over
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    except OSError:
        listener.close()
        raise
    finally:
        os.close(folder)
    listener.setblocking(False)
    return listener

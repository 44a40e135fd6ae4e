"""Where workers dial in: handshake, heartbeats, and one connection per worker that carries whole messages.

Nothing here decides what a worker loads or answers: :class:`WorkerEvents` and ``on_results`` are told.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from contracts.worker_protocol import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Challenge,
    Failure,
    FrameReader,
    FromGateway,
    FromWorker,
    Heartbeat,
    Hello,
    Leaving,
    Loaded,
    NeedContent,
    Notification,
    ProtocolError,
    Refused,
    Result,
    Results,
    Welcome,
    decode_from_worker,
    frame,
    gateway_proof,
    is_same_proof,
    worker_proof,
)
from service_kit.logging import get_logger

log = get_logger(__name__)

_HANDSHAKE_SECONDS = 5.0
_MOST_UNPROVEN = 64
"""Of one listener: a flood from the network does not keep out this machine's own workers."""
_BEATS_PER_SILENCE = 5
_CLOSING_SECONDS = 2.0
_HEARTBEAT = bytes(frame(Heartbeat()))
_PEER_CREDENTIALS = struct.Struct("3i")


class WorkerEvents(Protocol):
    """Who is told of workers, in the event loop's thread; ``lost`` follows every ``joined`` exactly once."""

    def joined(self, link: "WorkerConnection") -> None:
        """It has proven itself."""

    def leaving(self, link: "WorkerConnection") -> None:
        """It takes nothing new, answers what it has, and closes."""

    def lost(self, link: "WorkerConnection", reason: str) -> None:
        """Nothing can be sent to it any more, and nothing will come."""

    def loaded(self, link: "WorkerConnection", message: Loaded) -> None:
        """What came of a Load."""

    def needs_content(self, link: "WorkerConnection", message: NeedContent) -> None:
        """It wants the bytes of a generation."""

    def notified(self, link: "WorkerConnection", message: Notification) -> None:
        """Its endpoint's code has something to say."""


OnResults = Callable[["WorkerConnection", list[Result | Failure]], None]
Refusal = Callable[[str], str | None]
"""Why no worker is taken in for this pool; None: it is."""


class WorkerConnection(asyncio.Protocol):
    """One worker; a ``Link`` of the data plane. What the worker says of itself is there once it has joined."""

    def __init__(self, port: "WorkerPort", unproven: "set[WorkerConnection]") -> None:
        self.worker_id = self.pool = self.host = self.peer = ""
        self.pid = self.memory_bytes = 0
        self.batch_size = 1
        self.addresses: list[str] = []
        self.is_open = self.is_leaving = False
        self._port = port
        self._unproven = unproven
        self._is_proven = self._is_paused = False
        self._transport: asyncio.Transport
        self._reader = FrameReader()
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._loop = asyncio.get_running_loop()
        self._limit: asyncio.TimerHandle | None = None
        self._heard = self._progressed = self._loop.time()
        self._sent = self._gone_out = 0
        self._waiters: list[asyncio.Future[None]] = []

    # What the data plane and the loading of generations use

    @property
    def takes_calls(self) -> bool:
        """Whether something can be sent to it, and it does not end."""
        return self.is_open and not self.is_leaving

    def send(self, message: FromGateway) -> None:
        """Hand the message to the system, or to memory while the worker reads too slowly; nothing once it is lost.

        Raises
        ------
        ProtocolError
            The message cannot be framed.
        """
        data = frame(message)
        if self.is_open:
            self._sent += len(data)
            self._transport.write(data)

    async def writable(self) -> None:
        """Wait until little is left in memory of what was sent: for whoever sends much.

        Raises
        ------
        ConnectionError
            The worker is lost.
        """
        while self._is_paused and self.is_open:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if not self.is_open:
            raise ConnectionError(f"The worker {self.worker_id} is lost.")

    def close(self, reason: str) -> None:
        """End the connection; what was sent still goes out where the worker reads it."""
        self._end(reason)
        self._transport.close()

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self._end(reason)
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Challenge the peer, unless too many others have not yet answered theirs."""
        transport = cast("asyncio.Transport", transport)  # uvloop's derive from no class of asyncio
        self._transport = transport
        self.peer = _peer(transport)
        if len(self._unproven) >= _MOST_UNPROVEN:
            log.warning("worker_refused", peer=self.peer, reason="too many connections that have not proven themselves")
            transport.abort()
            return
        self.is_open = True
        self._unproven.add(self)
        self._port.opened(self)
        transport.set_write_buffer_limits(high=CHUNK_BYTES)
        self._limit = self._loop.call_later(_HANDSHAKE_SECONDS, self._give_up)
        self.send(Challenge(PROTOCOL_VERSION, self._nonce))

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        self._heard = self._loop.time()
        try:
            for body in self._reader.feed(data):
                message = decode_from_worker(body)
                if type(message) is Results and self._is_proven:
                    self._port.on_results(self, message.results)
                else:
                    self._take(message)
        except ProtocolError as error:
            self._misunderstood(str(error))

    def pause_writing(self) -> None:
        """Much is waiting to go out."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Little is waiting to go out."""
        self._is_paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._limit is not None:
            self._limit.cancel()
        self._end(f"its connection broke: {exc}" if exc else "it closed its connection")
        self._port.closed(self)

    # The rest

    def beat(self, now: float, silence: float, stall: float, *, is_judged: bool) -> None:
        """Show the worker that the gateway lives; give it up if it does not (all in seconds)."""
        gone_out = self._sent - self._transport.get_write_buffer_size()
        if gone_out == self._sent or gone_out > self._gone_out:
            self._gone_out, self._progressed = gone_out, now
        if is_judged and now - self._heard > silence:
            self.abort(f"it said nothing for {silence:g} s")
        elif is_judged and now - self._progressed > stall:
            self.abort(f"it read nothing for {stall:g} s")
        else:
            self._sent += len(_HEARTBEAT)
            self._transport.write(_HEARTBEAT)

    def _take(self, message: FromWorker) -> None:
        events = self._port.events
        if not self._is_proven:
            if not isinstance(message, Hello):
                raise ProtocolError("The first message must be Hello.")
            self._greet(message)
            return
        match message:
            case Heartbeat(memory_bytes=memory_bytes):
                self.memory_bytes = memory_bytes
            case Loaded():
                self.memory_bytes = message.memory_bytes
                events.loaded(self, message)
            case NeedContent():
                events.needs_content(self, message)
            case Notification():
                events.notified(self, message)
            case Leaving():
                if not self.is_leaving:
                    self.is_leaving = True
                    events.leaving(self)
            case Hello() | Results():
                raise ProtocolError("A second Hello is not allowed.")

    def _greet(self, hello: Hello) -> None:
        refused = self._port.refused(hello, self._nonce)
        if refused is not None:
            self._refuse(refused)
            return
        self._is_proven = True
        self._unproven.discard(self)
        if self._limit is not None:
            self._limit.cancel()
        self._reader.max_frame_bytes = MAX_FRAME_BYTES
        self.worker_id, self.pool, self.host = hello.worker_id, hello.pool, hello.host
        self.pid, self.addresses, self.batch_size = hello.pid, hello.addresses, max(1, hello.batch_size)
        self._port.welcome(self, hello.nonce, self._nonce)

    def _misunderstood(self, reason: str) -> None:
        if self._is_proven:
            self.abort(f"it does not speak the protocol: {reason}")
        else:
            self._refuse(Refused(f"{reason} This gateway speaks version {PROTOCOL_VERSION}.", is_final=True))

    def _refuse(self, refused: Refused) -> None:
        log.warning("worker_refused", peer=self.peer, reason=refused.message)
        self.send(refused)
        self.is_open = False
        self._transport.close()

    def _give_up(self) -> None:
        if self.is_open:
            log.warning("worker_refused", peer=self.peer, reason=f"no Hello within {_HANDSHAKE_SECONDS:g} s")
        self.is_open = False
        self._transport.abort()

    def _end(self, reason: str) -> None:
        was_open, self.is_open = self.is_open, False
        self._unproven.discard(self)
        self._wake()
        if was_open and self._is_proven:
            self._port.lost(self, reason)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


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
        reason = self._refusal(hello.pool)
        return None if reason is None else Refused(reason, is_final=False)

    def welcome(self, connection: WorkerConnection, hello_nonce: bytes, nonce: bytes) -> None:
        """Take it in; an older connection of the same worker makes room."""
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
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(errno.EADDRINUSE, f"Another gateway listens on {path}") from error
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


def _peer(transport: asyncio.Transport) -> str:
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    peer = transport.get_extra_info("socket")
    pid, _, _ = _PEER_CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size))
    return f"process {pid} of this machine"

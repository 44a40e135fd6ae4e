"""One worker's connection: handshake, whole messages, and whether it still lives; what they mean is for others."""

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from contracts.worker_protocol import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    UNIX_BUFFER_BYTES,
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
    decode_from_worker,
    frame,
)
from service_kit.logging import get_logger

log = get_logger(__name__)

_HANDSHAKE_SECONDS = 5.0
_MOST_UNPROVEN = 64
"""Of one listener: a flood from the network does not keep out this machine's own workers."""
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


class PortSide(Protocol):
    """What a connection needs of the port that it came in by."""

    events: WorkerEvents
    on_results: OnResults

    def opened(self, connection: "WorkerConnection") -> None:
        """It is there, unproven."""

    def closed(self, connection: "WorkerConnection") -> None:
        """Its transport is gone."""

    def refused(self, hello: Hello, nonce: bytes) -> Refused | None:
        """Why the worker is not taken in; None: it is."""

    def welcome(self, connection: "WorkerConnection", hello_nonce: bytes, nonce: bytes) -> None:
        """Take it in."""

    def lost(self, connection: "WorkerConnection", reason: str) -> None:
        """It was taken in and is gone."""


class WorkerConnection(asyncio.Protocol):
    """One worker; a ``Link`` of the data plane. What the worker says of itself is there once it has joined."""

    def __init__(self, port: "PortSide", unproven: "set[WorkerConnection]") -> None:
        self.worker_id = self.pool = self.host = self.peer = ""
        self.pid = self.memory_bytes = 0
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
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)
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
        self.pid, self.addresses = hello.pid, hello.addresses
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


def _peer(transport: asyncio.Transport) -> str:
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    peer = transport.get_extra_info("socket")
    pid, _, _ = _PEER_CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size))
    return f"process {pid} of this machine"

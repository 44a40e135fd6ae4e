"""A worker that does what its test says, over a real socket: the other side of ``online_gateway.workers.port``."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

from contracts.inference import TensorSpec
from contracts.worker_protocol import (
    MAX_FRAME_BYTES,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Call,
    Calls,
    Challenge,
    Chunk,
    Failure,
    FrameReader,
    FromGateway,
    FromWorker,
    Heartbeat,
    Hello,
    Leaving,
    Load,
    Loaded,
    NeedContent,
    Refused,
    Result,
    Results,
    Unload,
    Welcome,
    decode_from_gateway,
    frame,
    gateway_proof,
    is_same_proof,
    worker_proof,
)

TOKEN = "a-worker-token-for-tests"

Verdict = Callable[[Load], str | None]
"""What becomes of a Load: '' is loaded, a sentence is why not, None is no answer."""


def loads_everything(_: Load) -> str:
    return ""


class Peer(asyncio.Protocol):
    """The raw stream, for tests of the handshake."""

    def __init__(self, on_message: Callable[[FromGateway], None] = lambda _: None) -> None:
        self.messages: list[FromGateway] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_message = on_message
        self._reader = FrameReader(MAX_FRAME_BYTES)
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for body in self._reader.feed(data):
            message = decode_from_gateway(body)
            if not isinstance(message, Chunk):
                self.messages.append(message)
            self._on_message(message)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, message: FromWorker) -> None:
        self.transport.write(frame(message))

    def of(self, kind: type) -> list[FromGateway]:
        return [message for message in self.messages if isinstance(message, kind)]


class ScriptedWorker:
    """Loads what ``verdict`` says, fetches contents, answers each call with the digest of what it has loaded."""

    def __init__(
        self,
        worker_id: str = "w-1",
        pool: str = "vectors",
        *,
        token: str = TOKEN,
        version: int = PROTOCOL_VERSION,
        verdict: Verdict = loads_everything,
        beats: bool = True,
        admits_losses: bool = False,
        pid: int = 42,
    ) -> None:
        """``admits_losses``: calls of what is not in ``memory`` are answered so; else they are errors of the test."""
        self.worker_id = worker_id
        self.pool = pool
        self.token = token
        self.version = version
        self.verdict = verdict
        self.beats = beats
        self.admits_losses = admits_losses
        self.pid = pid
        self.peer: Peer
        self.welcome: Welcome | None = None
        self.refused: Refused | None = None
        self.loads: list[Load] = []
        self.memory: dict[tuple[str, int], str] = {}
        """Digests, by endpoint and generation: what it has acknowledged and was not asked to unload."""
        self.contents: dict[tuple[str, int], str] = {}
        """SHA-256 of what arrived for a generation."""
        self.held: list[Load] = []
        """Those that it has not answered, because there was no verdict."""
        self._arriving: dict[tuple[str, int], hashlib._Hash] = {}
        self._asked: dict[tuple[str, int], Load] = {}
        self._beat: asyncio.TimerHandle | None = None

    async def connect(self, where: Path | tuple[str, int]) -> Self:
        """Dial in; returns when the gateway has welcomed or refused it."""
        loop = asyncio.get_running_loop()
        self._greeted = loop.create_future()
        self.peer = Peer(self._take)  # the first message may come before the connection is said to be there
        if isinstance(where, Path):
            await loop.create_unix_connection(lambda: self.peer, str(where))
        else:
            await loop.create_connection(lambda: self.peer, *where)
        await asyncio.wait([self._greeted, self.peer.closed], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        return self

    @property
    def is_connected(self) -> bool:
        return self.welcome is not None and not self.peer.closed.done()

    def generations(self, endpoint: str = "vectors") -> list[int]:
        """What it has in memory."""
        return sorted(number for name, number in self.memory if name == endpoint)

    def die(self) -> None:
        """Vanish, as a killed process does."""
        self._quiet()
        self.peer.transport.abort()

    def leave(self) -> None:
        """Say that it ends, and end."""
        self._quiet()
        self.peer.send(Leaving())
        self.peer.transport.close()

    def send(self, message: FromWorker) -> None:
        self.peer.send(message)

    def _quiet(self) -> None:
        if self._beat is not None:
            self._beat.cancel()

    def _beat_again(self) -> None:
        assert self.welcome is not None
        if self.beats and not self.peer.transport.is_closing():
            self.send(Heartbeat(memory_bytes=1))
        self._beat = asyncio.get_running_loop().call_later(self.welcome.heartbeat_seconds, self._beat_again)

    def _take(self, message: FromGateway) -> None:
        match message:
            case Challenge():
                self._answer_challenge(message)
            case Welcome():
                assert is_same_proof(message.proof, gateway_proof(self.token, self._challenge, self._nonce))
                self.welcome = message
                self._beat_again()
                self._greeted.set_result(None)
            case Refused():
                self.refused = message
                self._greeted.set_result(None)
            case Load():
                self._load(message)
            case Chunk():
                self._take_chunk(message)
            case Unload():
                self.held = [
                    load
                    for load in self.held
                    if (load.endpoint, load.generation) != (message.endpoint, message.generation)
                ]
                self._asked.pop((message.endpoint, message.generation), None)
                self._arriving.pop((message.endpoint, message.generation), None)
                self.memory.pop((message.endpoint, message.generation), None)
            case Calls():
                self.send(Results([self._answer_call(call) for call in message.calls]))
            case _:
                pass

    def _answer_call(self, call: Call) -> Result | Failure:
        place = (call.endpoint, call.generation)
        if self.admits_losses and place not in self.memory:
            return Failure(call.id, "not_loaded", "It is not in memory.", "")
        return Result(call.id, {"digest": self.memory[place]}, None, 0.0001)

    def _answer_challenge(self, challenge: Challenge) -> None:
        self._challenge, self._nonce = challenge.nonce, secrets.token_bytes(NONCE_BYTES)
        proof = worker_proof(self.token, challenge.nonce, self._nonce, self.pool, self.worker_id)
        hello = Hello(
            self.version, self.pool, self.worker_id, "a-host", self.pid, ["192.0.2.7"], {}, self._nonce, proof
        )
        self.send(hello)

    def _load(self, load: Load) -> None:
        self.loads.append(load)
        place = (load.endpoint, load.generation)
        if load in self.held or place in self._arriving:
            return  # as a real one: the answer to the first is on its way
        self._asked[place] = load
        if load.content_bytes is None:
            self.answer(load)
        else:
            self._arriving[place] = hashlib.sha256()
            self.send(NeedContent(*place))

    def _take_chunk(self, chunk: Chunk) -> None:
        place = (chunk.endpoint, chunk.generation)
        if place not in self._arriving:
            return  # unloaded while this was under way
        self._arriving[place].update(chunk.data)
        if chunk.is_last:
            self.contents[place] = self._arriving.pop(place).hexdigest()
            if place in self._asked:
                self.answer(self._asked[place])

    def answer_held(self) -> None:
        """Answer what there was no verdict for."""
        held, self.held = self.held, []
        for load in held:
            self.answer(load)

    def answer(self, load: Load) -> None:
        """Tell what came of it."""
        reason = self.verdict(load)
        if reason is None:
            self.held.append(load)
            return
        if not reason:
            self.memory[(load.endpoint, load.generation)] = load.digest
        spec = [TensorSpec("x", "FP32", (-1, 2))]
        trace = f"Traceback: {reason}" if reason else ""
        self.send(Loaded(load.endpoint, load.generation, not reason, reason, trace, spec, spec, "7.1", 1000))

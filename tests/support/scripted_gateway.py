"""A gateway that does what its test says, on plain sockets, and nothing by itself: the other side of online_worker."""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from contracts.inference import Tensor
from contracts.worker_protocol import (
    CHUNK_BYTES,
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
    Load,
    Loaded,
    NeedContent,
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

TOKEN = "token-of-the-online-tests"
M = TypeVar("M", bound=FromWorker)

_WITHIN = 20.0
"""Seconds; every wait of this module ends then with an error."""


class LineClosed(Exception):
    """The worker closed its side."""


class Line:
    """One worker's connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_WITHIN)
        self.socket = connection
        self.hello: Hello | None = None
        self._reader = FrameReader(MAX_FRAME_BYTES)
        self._frames: Iterator[bytes] = iter(())
        self.early: list[FromWorker] = []
        """What came before what a test waited for."""

    def send(self, *messages: FromGateway) -> None:
        """Send them at once."""
        self.socket.sendall(b"".join(frame(message) for message in messages))

    def receive(self) -> FromWorker:
        """The next message."""
        while (body := next(self._frames, None)) is None:
            data = self.socket.recv(2**18)
            if not data:
                raise LineClosed
            self._frames = self._reader.feed(data)
        return decode_from_worker(body)

    def next(self, kind: type[M]) -> M:
        """The next message of this kind; the others before it are in ``early``."""
        end = time.monotonic() + _WITHIN
        while time.monotonic() < end:
            message = self.receive()
            if isinstance(message, kind):
                return message
            self.early.append(message)
        raise AssertionError(f"no {kind.__name__} came; there were {self.early[-5:]}")

    def heard(self, kind: type[M]) -> M:
        """The first message of this kind, also of those that came early."""
        return next((message for message in self.early if isinstance(message, kind)), None) or self.next(kind)

    def greet(
        self,
        token: str = TOKEN,
        heartbeat_seconds: float = 0.2,
        silence_seconds: float = 30.0,
        then: tuple[FromGateway, ...] = (),
    ) -> Hello:
        """The handshake; ``then`` is sent together with the welcome."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        self.send(Challenge(PROTOCOL_VERSION, nonce))
        self.hello = hello = self.next(Hello)
        assert is_same_proof(hello.proof, worker_proof(TOKEN, nonce, hello.nonce, hello.pool, hello.worker_id))
        welcome = Welcome("gateway", gateway_proof(token, nonce, hello.nonce), heartbeat_seconds, silence_seconds)
        self.send(welcome, *then)
        return hello

    def refuse(self, message: str, *, is_final: bool) -> None:
        """The handshake, as far as a refusal."""
        self.send(Challenge(PROTOCOL_VERSION, secrets.token_bytes(NONCE_BYTES)))
        self.next(Hello)
        self.send(Refused(message, is_final))
        self.close()

    def load(self, load: Load, content: bytes | None = None) -> Loaded:
        """Have it loaded, with its content if the worker wants that."""
        self.send(load)
        while not isinstance(message := self.receive(), Loaded):
            if isinstance(message, NeedContent):
                assert content is not None
                self.send(*chunks(load, content))
        return message

    def call(self, *calls: Call, together: bool = False) -> list[Result | Failure]:
        """Send the calls in one frame; their answers, by id."""
        self.send(Calls(list(calls), together))
        answers: list[Result | Failure] = []
        while len(answers) < len(calls):
            answers += self.next(Results).results
        return sorted(answers, key=lambda answer: answer.id)

    def wait_for_end(self) -> list[FromWorker]:
        """What came until the worker closed its side."""
        messages: list[FromWorker] = []
        try:
            while True:
                messages.append(self.receive())
        except (LineClosed, ConnectionResetError):
            return messages

    def close(self) -> None:
        """End it."""
        self.socket.close()


class ScriptedGateway:
    """Listens on a unix socket, or on a port of loopback."""

    def __init__(self, path: Path | None = None) -> None:
        self._lines: list[Line] = []
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.settimeout(_WITHIN)
        if path is None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(str(path) if path else ("127.0.0.1", 0))
        self._listener.listen()
        self.address = f"unix://{path}" if path else f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> Line:
        """The next connection."""
        line = Line(self._listener.accept()[0])
        self._lines.append(line)
        return line

    def welcome(self, **greeting: Any) -> Line:
        """The next connection, after the handshake."""
        line = self.accept()
        line.greet(**greeting)
        return line

    def close(self) -> None:
        """Close all."""
        for line in self._lines:
            line.close()
        self._listener.close()


@contextmanager
def scripted_gateway(path: Path | None = None) -> Iterator[ScriptedGateway]:
    """One that is closed at the end."""
    gateway = ScriptedGateway(path)
    try:
        yield gateway
    finally:
        gateway.close()


def load_echo(endpoint: str = "echo", generation: int = 1, digest: str = "echo") -> Load:
    """A generation that echoes."""
    return Load(endpoint, generation, digest, "echo", {}, None)


def load_module(
    module: Path,
    *,
    endpoint: str = "model",
    generation: int = 1,
    digest: str = "1",
    entry: dict[str, Any] | None = None,
    class_name: str | None = None,
    content: bytes | None = None,
) -> Load:
    """A generation of a Python endpoint."""
    config = {"entry": entry or {}, "module": str(module), "class": class_name}
    return Load(endpoint, generation, digest, "python", config, None if content is None else len(content))


def chunks(load: Load, content: bytes, of: int = CHUNK_BYTES) -> list[FromGateway]:
    """The content in pieces."""
    ends = range(of, len(content) + of, of) if content else [0]
    return [Chunk(load.endpoint, load.generation, content[max(0, end - of) : end], end >= len(content)) for end in ends]


def document_call(
    id: int,  # noqa: A002 - the word of the protocol
    document: dict[str, Any],
    endpoint: str = "model",
    generation: int = 1,
) -> Call:
    """A call with a document."""
    return Call(id, endpoint, generation, document, None, [])


def tensor_call(
    id: int,  # noqa: A002 - the word of the protocol
    *tensors: Tensor,
    endpoint: str = "model",
    generation: int = 1,
    outputs: tuple[str, ...] = (),
) -> Call:
    """A call with tensors."""
    return Call(id, endpoint, generation, None, list(tensors), list(outputs))


def beat() -> Heartbeat:
    """The gateway's sign of life."""
    return Heartbeat()

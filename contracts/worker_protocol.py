"""What gateway and worker say to each other over one stream, which the worker opens.

A frame is the length of its body as an unsigned 32-bit big-endian number, then the body: one message in msgpack, an
array whose first element names its kind. Nothing here can carry code.

    worker                         gateway
      │ ◄────────────── Challenge ──│  its version, and a nonce
      │── Hello ──────────────────► │  who it is, what it has in memory, and a proof that it knows the token
      │ ◄──── Welcome, or Refused ──│  the gateway's own proof, and the rhythm of heartbeats
      │ ◄─ Load, Chunk … ───────────│  a generation to load beside those that serve
      │── Loaded ─────────────────► │  done, or why not
      │ ◄─────────────────── Calls ─│  many may be in flight; those of one message may be predicted together
      │── Results ────────────────► │  in any order, by the calls' ids
      │ ◄────────── Cancel, Unload ─│
      │── Heartbeat ──────────────► │  each way, in the rhythm that Welcome gave
      │── Leaving ────────────────► │  give me nothing new; I close when the last answer is out
      │ ◄─────────────────── Leave ─│  finish what you have, then end

The token itself never travels: each side proves with an HMAC over the other's nonce that it holds it.
"""

import hmac
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from contracts.inference import UNREADABLE, Tensor, TensorSpec

PROTOCOL_VERSION = 1
HEADER_BYTES = 4
MAX_FRAME_BYTES = 256 * 2**20
MAX_UNPROVEN_FRAME_BYTES = 64 * 2**10
"""The longest frame from a peer that has not yet shown that it knows the token."""
CHUNK_BYTES = 2**20
UNIX_BUFFER_BYTES = 4 * 2**20
"""What each side lets a unix socket hold of what it sends, as far as the system allows: a tensor of some megabytes then
takes a few turns between the two processes, and not one for each of the usual 200 KiB."""
NONCE_BYTES = 32


class ProtocolError(Exception):
    """The peer does not speak this protocol; the connection is of no more use."""


class Challenge(msgspec.Struct, tag="challenge", array_like=True):
    """The gateway's first word."""

    version: int
    nonce: bytes


class Hello(msgspec.Struct, tag="hello", array_like=True):
    """The worker's answer to the challenge."""

    version: int
    pool: str
    """The endpoint that it serves, or the pool of endpoints, such as ``modelhost``."""
    worker_id: str
    host: str
    pid: int
    addresses: list[str]
    """The IP addresses of its host."""
    loaded: dict[str, list[str]]
    """Digests of the generations in its memory, by endpoint."""
    nonce: bytes
    proof: bytes


class Welcome(msgspec.Struct, tag="welcome", array_like=True):
    """The gateway takes the worker in."""

    gateway_id: str
    proof: bytes
    heartbeat_seconds: float
    """Each side sends one so often,"""
    silence_seconds: float
    """and takes the other for dead after so long without a byte."""


class Refused(msgspec.Struct, tag="refused", array_like=True):
    """The gateway does not take it in; the connection is closed after this."""

    message: str
    is_final: bool
    """Whether trying again is pointless until somebody changes something."""


class Load(msgspec.Struct, tag="load", array_like=True):
    """Load a generation beside the others, warm it, and answer with Loaded. A repetition is answered again.

    Where ``content_bytes`` is not None and the worker has not this digest in memory, it answers with NeedContent and
    gets Chunks.
    """

    endpoint: str
    generation: int
    digest: str
    """Identifies engine, configuration and content: what has the same digest is the same model."""
    engine: str
    config: dict[str, Any]
    content_bytes: int | None


class NeedContent(msgspec.Struct, tag="need", array_like=True):
    """The worker wants the bytes of this generation."""

    endpoint: str
    generation: int


class Chunk(msgspec.Struct, tag="chunk", array_like=True):
    """A piece of a generation's content, in order, at most CHUNK_BYTES; the last one says so and may be empty."""

    endpoint: str
    generation: int
    data: bytes
    is_last: bool


class Loaded(msgspec.Struct, tag="loaded", array_like=True):
    """What came of a Load."""

    endpoint: str
    generation: int
    ok: bool
    message: str
    trace: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    version: str | None
    """The version that the endpoint's code gives itself."""
    memory_bytes: int
    """The worker's resident memory afterwards."""


class Unload(msgspec.Struct, tag="unload", array_like=True):
    """Nothing more will be asked of this generation: let go of it."""

    endpoint: str
    generation: int


class Call(msgspec.Struct, array_like=True):
    """One call to one generation; see :class:`contracts.inference.InferCall`."""

    id: int
    endpoint: str
    generation: int
    document: dict[str, Any] | None
    tensors: list[Tensor] | None
    outputs: list[str]
    limit_seconds: float = 0.0
    """A call of this endpoint that takes longer hangs; 0: none does."""


class Calls(msgspec.Struct, tag="calls", array_like=True):
    """Calls to predict: together if ``together``, which are then of one generation, else one after the other."""

    calls: list[Call]
    together: bool


class Cancel(msgspec.Struct, tag="cancel", array_like=True):
    """Nobody waits for these any more: those that have not begun are skipped, which a Failure tells."""

    ids: list[int]


class Result(msgspec.Struct, tag="ok", array_like=True):
    """The answer to one call."""

    id: int
    document: Any
    tensors: list[Tensor] | None
    inference_seconds: float


FailureKind = Literal["invalid_input", "model_failed", "not_loaded", "cancelled"]


class Failure(msgspec.Struct, tag="no", array_like=True):
    """Why there is no answer to one call."""

    id: int
    kind: FailureKind
    message: str
    trace: str


class Results(msgspec.Struct, tag="results", array_like=True):
    """Answers, as soon as they are there."""

    results: list[Result | Failure]


class Heartbeat(msgspec.Struct, tag="beat", array_like=True):
    """I am here. The worker adds its resident memory."""

    memory_bytes: int = 0


class Notification(msgspec.Struct, tag="note", array_like=True):
    """Something that the endpoint's code wants its operator to know."""

    endpoint: str
    kind: str
    message: str
    unix_time: float


class Leaving(msgspec.Struct, tag="leaving", array_like=True):
    """The worker was told to end: it takes nothing new, answers what it has, and closes the stream."""


class Leave(msgspec.Struct, tag="leave", array_like=True):
    """The gateway asks the worker to do just that, and to end its process."""


FromGateway = Challenge | Welcome | Refused | Load | Chunk | Unload | Calls | Cancel | Heartbeat | Leave
FromWorker = Hello | NeedContent | Loaded | Results | Heartbeat | Notification | Leaving

_encoder = msgspec.msgpack.Encoder()
_from_gateway: msgspec.msgpack.Decoder[FromGateway] = msgspec.msgpack.Decoder(FromGateway)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def frame(message: FromGateway | FromWorker) -> bytearray:
    """The message as one frame.

    Raises
    ------
    ProtocolError
        It is longer than a frame may be, or holds what msgpack cannot carry.
    """
    buffer = bytearray(HEADER_BYTES)
    try:
        _encoder.encode_into(message, buffer, HEADER_BYTES)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ProtocolError(f"The message cannot be sent: {error}") from error
    length = len(buffer) - HEADER_BYTES
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"The message has {length} bytes; a frame may have {MAX_FRAME_BYTES}.")
    buffer[:HEADER_BYTES] = length.to_bytes(HEADER_BYTES, "big")
    return buffer


def decode_from_gateway(body: memoryview | bytes) -> FromGateway:
    """The gateway's message in a frame's body.

    Raises
    ------
    ProtocolError
        It is none.
    """
    try:
        return _from_gateway.decode(body)
    except UNREADABLE as error:
        raise ProtocolError(f"The gateway sent what this worker does not understand: {error}") from error


def decode_from_worker(body: memoryview | bytes) -> FromWorker:
    """The worker's message in a frame's body.

    Raises
    ------
    ProtocolError
        It is none.
    """
    try:
        return _from_worker.decode(body)
    except UNREADABLE as error:
        raise ProtocolError(f"The worker sent what this gateway does not understand: {error}") from error


class FrameReader:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self, max_frame_bytes: int = MAX_UNPROVEN_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        """Raise it to MAX_FRAME_BYTES once the peer has proven itself."""
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Take what arrived; the bodies that are now whole. Exhaust it before the next call.

        Raises
        ------
        ProtocolError
            A frame is announced that is longer than allowed.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= HEADER_BYTES:
                length = int.from_bytes(buffer[start : start + HEADER_BYTES], "big")
                if length > self.max_frame_bytes:
                    raise ProtocolError(f"A frame of {length} bytes is announced; {self.max_frame_bytes} are allowed.")
                end = start + HEADER_BYTES + length
                if len(buffer) < end:
                    break
                body = bytes(memoryview(buffer)[start + HEADER_BYTES : end])
                start = end
                yield body
        finally:
            del buffer[:start]


def worker_proof(token: str, gateway_nonce: bytes, hello_nonce: bytes, pool: str, worker_id: str) -> bytes:
    """What shows that a worker knows the token."""
    return _proof(token, b"worker", gateway_nonce, hello_nonce, pool.encode(), worker_id.encode())


def gateway_proof(token: str, gateway_nonce: bytes, hello_nonce: bytes) -> bytes:
    """What shows that a gateway knows the token."""
    return _proof(token, b"gateway", gateway_nonce, hello_nonce)


def is_same_proof(given: bytes, expected: bytes) -> bool:
    """Compare without telling by the time it takes how much of it was right."""
    return hmac.compare_digest(given, expected)


def _proof(token: str, *parts: bytes) -> bytes:
    code = hmac.new(token.encode(), digestmod="sha256")
    for part in parts:
        code.update(len(part).to_bytes(HEADER_BYTES, "big") + part)
    return code.digest()

"""The first words with a gateway, in which each side proves that it knows the token."""

import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.worker_protocol import (
    MAX_FRAME_BYTES,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Challenge,
    FrameReader,
    Hello,
    ProtocolError,
    Refused,
    Welcome,
    decode_from_gateway,
    frame,
    gateway_proof,
    is_same_proof,
    worker_proof,
)
from service_kit.deadline import Deadline

_RECEIVE_BYTES = 64 * 2**10
_MOST_DIGESTS = 256
"""A greeting must be short (``MAX_UNPROVEN_FRAME_BYTES``); a digest that it does not name is loaded as fast."""


class RefusedByGateway(Exception):
    """The gateway does not take this worker in."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether it would be the same the next time."""


@dataclass(frozen=True)
class Identity:
    """Who this worker is, and what it knows."""

    pool: str
    worker_id: str
    host: str
    pid: int
    addresses: list[str]
    token: str


@dataclass(frozen=True)
class Greeting:
    """How a handshake ended."""

    welcome: Welcome
    reader: FrameReader
    """It holds the beginning of what comes next,"""
    bodies: list[bytes]
    """and these frames came already."""


def shake_hands(
    connection: socket.socket, identity: Identity, loaded: dict[str, list[str]], deadline: Deadline
) -> Greeting:
    """Introduce the worker, and let the gateway prove itself.

    Raises
    ------
    RefusedByGateway
        It does not take the worker in.
    ProtocolError
        It speaks another protocol, or does not know the token.
    OSError
        The connection broke, or the deadline passed.
    """
    reader = FrameReader()
    gateway = _Conversation(connection, reader, deadline)
    challenge = decode_from_gateway(gateway.listen())
    if not isinstance(challenge, Challenge):
        raise ProtocolError("The gateway did not begin with a challenge.")
    if challenge.version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"The gateway speaks version {challenge.version} of the worker protocol, this worker version "
            f"{PROTOCOL_VERSION}; install the same release on both sides."
        )
    nonce = secrets.token_bytes(NONCE_BYTES)
    connection.sendall(frame(_hello(identity, loaded, challenge.nonce, nonce)))
    answer = decode_from_gateway(gateway.listen())
    if isinstance(answer, Refused):
        raise RefusedByGateway(answer.message, is_final=answer.is_final)
    if not isinstance(answer, Welcome):
        raise ProtocolError("The gateway neither welcomed nor refused this worker.")
    if not is_same_proof(answer.proof, gateway_proof(identity.token, challenge.nonce, nonce)):
        raise ProtocolError("What answers there does not know the worker token; it is not the gateway, or has another.")
    reader.max_frame_bytes = MAX_FRAME_BYTES
    return Greeting(answer, reader, gateway.rest())


def _hello(identity: Identity, loaded: dict[str, list[str]], challenge: bytes, nonce: bytes) -> Hello:
    return Hello(
        version=PROTOCOL_VERSION,
        pool=identity.pool,
        worker_id=identity.worker_id,
        host=identity.host,
        pid=identity.pid,
        addresses=identity.addresses,
        loaded=_most_of(loaded),
        nonce=nonce,
        proof=worker_proof(identity.token, challenge, nonce, identity.pool, identity.worker_id),
    )


def _most_of(loaded: dict[str, list[str]]) -> dict[str, list[str]]:
    pairs = [(endpoint, digest) for endpoint, digests in loaded.items() for digest in digests]
    kept: dict[str, list[str]] = {}
    for endpoint, digest in pairs[:_MOST_DIGESTS]:
        kept.setdefault(endpoint, []).append(digest)
    return kept


class _Conversation:
    """Frames of a connection that waits, but not beyond the deadline."""

    def __init__(self, connection: socket.socket, reader: FrameReader, deadline: Deadline) -> None:
        self._connection = connection
        self._reader = reader
        self._deadline = deadline
        self._arrived: Iterator[bytes] = iter(())

    def listen(self) -> bytes:
        """The next frame's body."""
        while (body := next(self._arrived, None)) is None:
            if self._deadline.expired:
                raise TimeoutError("it does not go on with the handshake")
            self._connection.settimeout(max(self._deadline.remaining.total_seconds(), 0.001))
            data = self._connection.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection during the handshake")
            self._arrived = self._reader.feed(data)
        return body

    def rest(self) -> list[bytes]:
        """What arrived together with the frame before."""
        return list(self._arrived)

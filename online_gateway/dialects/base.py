"""What every dialect is given, takes and answers; each module of one exports ``dialect(services) -> Routes``."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from starlette.types import Message, Receive, Scope

from online_gateway.access import Access
from online_gateway.control import Control
from online_gateway.dataplane.plane import DataPlane

JSON = b"application/json"
PIECE_SECONDS = 60.0
"""Between two pieces of a body may pass so much."""

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class DialectServices:
    """What a dialect is made with."""

    dataplane: DataPlane
    control: Control
    access: Access
    max_call_bytes: int
    """Largest body of one call."""
    max_model_bytes: int
    """Largest uploaded model."""
    vector_endpoint: str
    """The endpoint behind the routes of the vector service."""
    run_path: str = "/run"
    """Where the microservice gateway's calls arrive."""


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()


class BodyTooLarge(Exception):
    """The body is longer than it may be."""


class BodyTooSlow(Exception):
    """The rest of the body does not come."""


class ClientGone(Exception):
    """The client closed its connection before its request was whole: nobody reads an answer."""


class HotRequest:
    """One request to a hot route."""

    __slots__ = ("_receive", "match", "scope")

    def __init__(self, scope: Scope, receive: Receive, match: "re.Match[str] | None") -> None:
        self.scope = scope
        self.match = match
        """Of the path, where the route is a pattern."""
        self._receive = receive

    def headers(self) -> dict[bytes, bytes]:
        """The headers by their names in lower case; of those of one name the last."""
        return dict(self.scope["headers"])

    async def body(self, most_bytes: int) -> bytes:
        """The whole body.

        Raises
        ------
        BodyTooLarge, BodyTooSlow, ClientGone
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > most_bytes:
                raise BodyTooLarge
            return body
        pieces, size = [body], len(body)
        while message.get("more_body"):
            message = await self._next_piece()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > most_bytes:
                raise BodyTooLarge
        return b"".join(pieces)

    async def _next_piece(self) -> Message:
        """A part of the body is held in memory: not for ever."""
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                return await self._receive()
        except TimeoutError:
            raise BodyTooSlow from None

    async def gone(self) -> None:
        """Return when the client has closed its connection; only once the body was read.

        For calls that have waited for a while alone: a task that waits for this costs more than most calls do.
        """
        while (await self._receive())["type"] != "http.disconnect":
            pass


HotHandler = Callable[[HotRequest], Awaitable[Reply]]
"""Answers, errors of its dialect included; it raises ClientGone, and CancelledError where its own task is cancelled."""

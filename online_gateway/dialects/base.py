"""What every dialect is made of: routes of FastAPI, and hot routes that go past it.

A hot route takes the body as bytes and gives the answer as bytes. FastAPI's middleware, routing and validation cost
several times what a call does; so does a task that watches whether the client is still there, hence
:meth:`HotRequest.gone` is called only for calls that have waited for a while.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fastapi import APIRouter
from starlette.types import ASGIApp, Receive, Scope, Send

from online_gateway.access import Access
from online_gateway.control import Control
from online_gateway.dataplane.plane import DataPlane

JSON = b"application/json"


@dataclass(frozen=True)
class DialectServices:
    """What a dialect is made with; each exports ``dialect(services: DialectServices) -> Dialect``."""

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
    headers: tuple[tuple[bytes, bytes], ...] = ()


_STOPPED = Reply(
    503, b'{"detail":"The gateway was stopped, and did not wait longer for this call.","code":"unavailable"}'
)


class BodyTooLarge(Exception):
    """The body is longer than it may be."""


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

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, its name in lower case."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return None

    async def body(self, most_bytes: int) -> bytes:
        """The whole body.

        Raises
        ------
        BodyTooLarge, ClientGone
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
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > most_bytes:
                raise BodyTooLarge
        return b"".join(pieces)

    async def gone(self) -> None:
        """Return when the client has closed its connection; only once the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


HotHandler = Callable[[HotRequest], Awaitable[Reply]]
"""Answers, errors of its dialect included; it raises nothing but ClientGone."""


class Dialect(Protocol):
    """One wire format."""

    router: APIRouter
    """Its cold routes; the hot ones stand here too, for the API's description."""
    hot: Mapping[tuple[str, str], HotHandler]
    """Hot routes by method and exact path."""
    hot_patterns: Sequence[tuple[str, "re.Pattern[str]", HotHandler]]
    """Hot routes with parts that vary: method, pattern of the whole path, handler."""


class HotDoor:
    """Middleware that answers the hot routes; the rest goes on to FastAPI."""

    def __init__(self, app: ASGIApp, dialects: Sequence[Dialect]) -> None:
        self._app = app
        self._exact = {key: handler for dialect in dialects for key, handler in dialect.hot.items()}
        self._patterns = [entry for dialect in dialects for entry in dialect.hot_patterns]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the call on."""
        if scope["type"] == "http":
            handler = self._exact.get((scope["method"], scope["path"]))
            match = None
            if handler is None:
                handler, match = self._by_pattern(scope)
            if handler is not None:
                await self._answer(handler, HotRequest(scope, receive, match), send)
                return
        await self._app(scope, receive, send)

    def _by_pattern(self, scope: Scope) -> "tuple[HotHandler | None, re.Match[str] | None]":
        for method, pattern, handler in self._patterns:
            if method == scope["method"] and (match := pattern.fullmatch(scope["path"])):
                return handler, match
        return None, None

    @staticmethod
    async def _answer(handler: HotHandler, request: HotRequest, send: Send) -> None:
        try:
            reply = await handler(request)
        except ClientGone:
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                return  # the data plane's word for a client that has gone away
            await _send(_STOPPED, send)
            raise
        await _send(reply, send)


async def _send(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})

"""The way past FastAPI, whose middleware, routing and validation cost several times what a call does.

A hot route takes the body as bytes and gives the answer as bytes.
"""

import asyncio
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from online_gateway.dialects.base import ClientGone, HotHandler, HotRequest, Reply
from online_gateway.dialects.errors import RETRY_LATER
from online_gateway.dialects.routes import Routes

_STOPPED = Reply(
    503,
    b'{"detail":"The gateway was stopped, and did not wait longer for this call.","code":"unavailable"}',
    headers=RETRY_LATER,
)


class HotDoor:
    """Middleware that answers the hot routes; the rest goes on to FastAPI."""

    def __init__(self, app: ASGIApp, dialects: Sequence[Routes]) -> None:
        self._app = app
        self._exact = {key: handler for dialect in dialects for key, handler in dialect.hot.items()}
        self._patterns = [entry for dialect in dialects for entry in dialect.hot_patterns]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        handler, match = self._exact.get((scope["method"], scope["path"])), None
        if handler is None:
            handler, match = self._by_pattern(scope)
            if handler is None:
                await self._app(scope, receive, send)
                return
        try:
            reply = await handler(HotRequest(scope, receive, match))
        except ClientGone:
            return
        except asyncio.CancelledError:
            await _send(_STOPPED, send)
            raise
        await _send(reply, send)

    def _by_pattern(self, scope: Scope) -> "tuple[HotHandler | None, re.Match[str] | None]":
        for method, pattern, handler in self._patterns:
            if method == scope["method"] and (match := pattern.fullmatch(scope["path"])):
                return handler, match
        return None, None


async def _send(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})

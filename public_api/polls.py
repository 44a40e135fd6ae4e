"""Polls by the shortest way: past FastAPI's middleware, routing and validation, which cost three times the relaying."""

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts import routes
from contracts.errors import PlatformError
from public_api.relay import Relay
from service_kit.http_app import error_response, status_of

_PLAIN_POLL = re.compile(re.escape(routes.TASK).replace(r"\{uid\}", "([A-Za-z0-9_-]+)"))
"""The path of a poll whose uid needs no quoting."""


class Polls:
    """Middleware that relays ``GET /api/tasks/{uid}`` where nothing is to validate; the rest goes on to the routes."""

    def __init__(self, app: ASGIApp, relay: Relay) -> None:
        self._app = app
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain poll, or pass the call on."""
        if not _is_plain_poll(scope):
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._relay.forward(Request(scope, receive), scope["path"])
        except PlatformError as error:
            answer = error_response(status_of(error), error.message, error.code)
        await answer(scope, receive, send)


def _is_plain_poll(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and not scope["query_string"]
        and _PLAIN_POLL.fullmatch(scope["path"]) is not None
    )

"""The shortest way to one hot route, past FastAPI: its middleware, routing and validation cost more than the answer."""

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import PlatformError
from service_kit.http_app import error_response, status_of

_PLAIN_PART = "([A-Za-z0-9_-]+)"
"""A part of a path that needs no quoting."""


class Shortcut:
    """Middleware that answers a plain ``GET`` of one path, with one variable part and no query; the rest goes on."""

    def __init__(self, app: ASGIApp, template: str, answer: Callable[[Request, str], Awaitable[Response]]) -> None:
        """Take the path's template, as ``/things/{name}``, and what answers, given the request and that part."""
        before, _, rest = template.partition("{")
        _, _, after = rest.partition("}")
        self._path = re.compile(re.escape(before) + _PLAIN_PART + re.escape(after))
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the call on."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        match = self._path.fullmatch(scope["path"])
        if match is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._answer(Request(scope, receive), match[1])
        except PlatformError as error:
            answer = error_response(status_of(error), error.message, error.code)
        await answer(scope, receive, send)

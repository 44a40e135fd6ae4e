"""A dialect's routes, each of whose answers is the dialect's own: errors, unknown paths and wrong methods too.

Cold routes are FastAPI's. Hot ones go past it, through :class:`online_gateway.dialects.hot_door.HotDoor`; FastAPI has
them too, for the API's description.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from contracts.errors import PlatformError, UploadTooLarge
from online_gateway.dialects.base import (
    PIECE_SECONDS,
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    Headers,
    HotHandler,
    HotRequest,
    Reply,
)
from online_gateway.dialects.errors import headers_of, status_of
from service_kit import multipart
from service_kit.logging import get_logger

log = get_logger(__name__)

ErrorAnswer = Callable[[int, str, PlatformError | None], Reply]
"""A dialect's answer to an error: its status, a sentence, and the error itself where it is one of ours."""
ColdHandler = Callable[[Request], Awaitable[Reply]]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_INTERNAL = "The server met an error of its own; its log has it. Try again, or tell the operator."


class Routes:
    """Collects them; :meth:`close` comes last."""

    def __init__(self, tag: str, answer_error: ErrorAnswer, max_call_bytes: int) -> None:
        self.router = APIRouter(tags=[tag])
        self.hot: dict[tuple[str, str], HotHandler] = {}
        """Hot routes by method and exact path."""
        self.hot_patterns: list[tuple[str, re.Pattern[str], HotHandler]] = []
        """Hot routes with parts that vary: method, pattern of the whole path, handler."""
        self._answer_error = answer_error
        self._max_call_bytes = max_call_bytes
        self._methods: dict[str, set[str]] = {}

    def add(self, methods: Sequence[str], path: str, handler: ColdHandler, summary: str, **description: Any) -> None:
        """A cold route."""

        async def answer(request: Request) -> Response:
            return await self._respond(handler, request)

        self._add(methods, path, answer, summary, **description)

    def add_hot(self, methods: Sequence[str], path: str, handler: HotHandler, summary: str, **description: Any) -> None:
        """A hot route; the path's variable parts are groups of ``request.match``."""
        guarded = self._guarded(handler)
        parts = [re.escape(part) for part in re.split(r"\{\w+\}", path)]
        names = re.findall(r"\{(\w+)\}", path)
        pattern = re.compile(parts[0] + "".join(f"(?P<{n}>[^/]+){p}" for n, p in zip(names, parts[1:], strict=True)))
        for method in methods:
            if names:
                self.hot_patterns.append((method, pattern, guarded))
            else:
                self.hot[method, path] = guarded

        async def answer(request: Request) -> Response:
            hot = HotRequest(request.scope, request.receive, pattern.fullmatch(request.url.path))
            try:
                return _response(await guarded(hot))
            except ClientGone:
                raise ClientDisconnect from None

        self._add(methods, path, answer, summary, **description)

    def include(self, others: "Routes") -> None:
        """Take in routes whose errors are answered in another way."""
        self.router.include_router(others.router)
        self.hot.update(others.hot)
        self.hot_patterns += others.hot_patterns

    def close(self, prefixes: Iterable[str] = ()) -> None:
        """Answer other methods on all paths, and other paths under the prefixes."""
        for path, methods in self._methods.items():
            self._fallback(path, 405, f"This path takes {' and '.join(sorted(methods))}.", sorted(methods))
        for prefix in prefixes:
            self._fallback(f"{prefix}/{{rest:path}}", 404, "There is no such path; /docs lists those there are.", ())

    def _fallback(self, path: str, status: int, message: str, allowed: Sequence[str]) -> None:
        headers = ((b"allow", ", ".join(allowed).encode()),) if allowed else ()

        async def answer(_: Request) -> Response:
            return _response(_with_headers(self._answer_error(status, message, None), headers))

        others = [method for method in _METHODS if method not in allowed]
        self.router.add_api_route(path, answer, methods=others, include_in_schema=False)

    def _add(
        self,
        methods: Sequence[str],
        path: str,
        answer: Callable[[Request], Awaitable[Response]],
        summary: str,
        **description: Any,
    ) -> None:
        self._methods.setdefault(path, set()).update(methods)
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", path)
        ]
        for method in methods:
            self.router.add_api_route(
                path,
                answer,
                methods=[method],
                summary=summary,
                name=f"{method.lower()} {path}",
                openapi_extra={"parameters": parameters, **description},
            )

    async def _respond(self, handler: ColdHandler, request: Request) -> Response:
        try:
            return _response(await handler(request))
        except ClientDisconnect:
            raise
        except HTTPException as error:
            return _response(self._answer_error(error.status_code, str(error.detail), None))
        except PlatformError as error:
            return _response(self._failure(error))
        except Exception:
            log.exception("a dialect failed", path=getattr(request.scope.get("route"), "path", ""))
            return _response(self._answer_error(500, _INTERNAL, None))

    def _guarded(self, handler: HotHandler) -> HotHandler:
        async def answered(request: HotRequest) -> Reply:
            try:
                return await handler(request)
            except ClientGone:
                raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise ClientGone from None  # the data plane's word for it
            except BodyTooLarge:
                return self._answer_error(413, f"A call may have {self._max_call_bytes} bytes.", None)
            except BodyTooSlow:
                return self._answer_error(408, f"No bytes arrived for {PIECE_SECONDS:g} s; send it again.", None)
            except PlatformError as error:
                return self._failure(error)
            except Exception:
                log.exception("a dialect failed", path=request.match.re.pattern if request.match else "")
                return self._answer_error(500, _INTERNAL, None)

        return answered

    def _failure(self, error: PlatformError) -> Reply:
        return _with_headers(self._answer_error(status_of(error), error.message, error), headers_of(error))


def _with_headers(reply: Reply, headers: Headers) -> Reply:
    return reply._replace(headers=(*reply.headers, *headers)) if headers else reply


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status, media_type=None)
    response.raw_headers += [(b"content-type", reply.content_type), *reply.headers]
    return response


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body of a cold route.

    Raises
    ------
    UploadTooLarge
        It is longer than that.
    """
    pieces, size = [], 0
    async for piece in multipart.body(request):
        size += len(piece)
        if size > most_bytes:
            raise UploadTooLarge(f"The body may have {most_bytes} bytes.")
        pieces.append(piece)
    return b"".join(pieces)


def described_body(schema: Mapping[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    """How a request's body looks in the API's description."""
    return {"requestBody": {"content": {media_type: {"schema": dict(schema)}}}}

"""How every HTTP service answers: error bodies, request log, and pages of documentation with assets of its own."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import (
    Conflict,
    ErrorBody,
    Forbidden,
    HostileArchive,
    InvalidRequest,
    NotAnArchive,
    NotFound,
    PlatformError,
    StorageFull,
    Unauthorized,
    Unavailable,
    UploadTooLarge,
)
from service_kit.logging import get_logger

log = get_logger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

HTTP_STATUS: Mapping[type[PlatformError], int] = {
    InvalidRequest: 422,
    NotAnArchive: 415,
    HostileArchive: 422,
    UploadTooLarge: 413,
    NotFound: 404,
    Conflict: 409,
    Unauthorized: 401,
    Forbidden: 403,
    Unavailable: 503,
    StorageFull: 507,
    PlatformError: 500,
}
"""The HTTP status of each error; the nearest class in its ancestry counts."""

RETRY_AFTER_SECONDS = 2
"""What a 503 asks a client to wait before the next try."""

_SLOW_SECONDS = 1.0


def status_of(error: PlatformError) -> int:
    """The HTTP status that the error's class, or its nearest ancestor, stands for."""
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)


def error_response(status: int, detail: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    """The JSON error body that every route answers with."""
    all_headers = dict(headers or {})
    if status == 503:
        all_headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return JSONResponse(ErrorBody(detail=detail, code=code).model_dump(), status, headers=all_headers)


async def _platform_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)  # noqa: S101 - registered for this class alone
    return error_response(status_of(error), error.message, error.code)


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    mistakes = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
    return error_response(422, "; ".join(mistakes), InvalidRequest.code)


async def _http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return error_response(error.status_code, str(error.detail), "http_error", error.headers)


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it: the connection is closed


async def _unexpected(_: Request, __: Exception) -> Response:
    return error_response(
        500,
        "The server met an error of its own; the log has it. Try again, or tell the operator.",
        "internal",
        {"Connection": "close"},  # uvicorn closes it after an exception; a client must not send its next call into that
    )


class RequestLog:
    """Logs one line per request that changed something, failed or was slow; paths by template, never with a uid."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and log its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def remember_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, remember_status)
        finally:
            seconds = time.perf_counter() - began
            if scope["method"] not in {"GET", "HEAD"} or status == 500 or seconds > _SLOW_SECONDS:
                path = getattr(scope.get("route"), "path", "(no route)")
                log.info("request", method=scope["method"], path=path, status=status, seconds=round(seconds, 4))


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(title: str, description: str, lifespan: Lifespan = _nothing, **options: Any) -> FastAPI:
    """An app with the platform's error bodies, request log, and a ``/docs`` that needs no internet."""
    app = FastAPIOffline(redoc_url=None, title=title, description=description, lifespan=lifespan, **options)
    app.add_exception_handler(PlatformError, _platform_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(RequestLog)
    return app

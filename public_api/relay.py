"""Carries one request to private_api and its answer back, streaming, with a deadline on every wait.

It goes through aiohttp: for a call this small httpx costs ten times as much as the call itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import aiohttp
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response
from yarl import URL

from contracts.errors import Unavailable, UploadTooLarge
from service_kit.logging import get_logger

log = get_logger(__name__)

CONNECT = timedelta(seconds=3)
ANSWER = timedelta(seconds=15)
"""How long private_api may take to answer a request without a body, beyond the wait that the client asked for."""
STORE = timedelta(minutes=10)
"""How long it may take after the last byte of an upload: sync to disk and check of the archive grow with the size."""
READ_IDLE = timedelta(seconds=60)
"""The longest silence in the middle of an answer."""

_SMALL_BODY_BYTES = 64 * 1024
_STREAM_BUFFER_BYTES = 512 * 1024
_PASSED_BACK = (
    "content-type",
    "content-length",
    "content-range",
    "content-disposition",
    "accept-ranges",
    "etag",
    "last-modified",
    "retry-after",
)
_PASSED_ON = ("content-type", "range", "if-range", "if-none-match", "if-match", "if-modified-since")
_AWAY = "The platform's storage service does not answer now; nothing was lost, try again in a moment."


class Relay:
    """A pooled connection to private_api. Open it inside the running event loop, close it at the end."""

    def __init__(self, private_api_url: str, token: str, max_upload_bytes: int, upload_idle: timedelta) -> None:
        self._base = private_api_url.rstrip("/")
        self._token = token
        self._max_upload_bytes = max_upload_bytes
        self._upload_idle = upload_idle.total_seconds()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; connects lazily, so private_api may come later."""
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            connector=aiohttp.TCPConnector(limit=1024, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT.total_seconds()),
            auto_decompress=False,
            read_bufsize=_STREAM_BUFFER_BYTES,
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    async def check(self) -> None:
        """Pass when private_api says that it is ready.

        Raises
        ------
        Unavailable
            It does not answer, or names a dependency of its own that is away.
        """
        answer = await self._send("GET", URL(self._base + "/health/ready"), {}, ANSWER)
        async with answer:
            if answer.status != 200:
                raise Unavailable(f"private_api is not ready: {(await answer.text())[:500]}")

    async def forward(self, request: Request, path: str, wait: timedelta = timedelta(0)) -> Response:
        """Relay a request without a body; ``path`` is already percent-encoded, ``wait`` is what its answer may take."""
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        answer = await self._send(request.method, self._url(path, request), headers, ANSWER + wait)
        return await _back(answer)

    async def forward_upload(self, request: Request, path: str) -> Response:
        """Relay a request with a body of any size.

        Raises
        ------
        UploadTooLarge
            The declared or the real size exceeds the limit.
        Unavailable
            private_api is away, now or in mid-upload.
        """
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        declared = request.headers.get("content-length")
        if declared is not None:
            if int(declared) > self._max_upload_bytes:
                raise self._too_large()
            headers["Content-Length"] = declared
        upload = _Upload(request, self._max_upload_bytes, self._upload_idle)
        try:
            async with asyncio.timeout(None) as scope:
                upload.scope = scope
                answer = await self._send(request.method, self._url(path, request), headers, None, upload.chunks())
        except TimeoutError as error:
            raise Unavailable(_AWAY) from error
        except Unavailable:
            if upload.too_large:
                raise self._too_large() from None
            raise
        return await _back(answer)

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(f"The upload exceeds the limit of {self._max_upload_bytes} bytes (MAX_UPLOAD_BYTES).")

    def _url(self, path: str, request: Request) -> URL:
        query = request.scope["query_string"].decode("latin-1")
        return URL(f"{self._base}{path}" + (f"?{query}" if query else ""), encoded=True)

    async def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        answer_within: timedelta | None,
        data: AsyncIterator[bytes] | None = None,
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "open() comes first"  # noqa: S101
        try:
            async with asyncio.timeout(answer_within.total_seconds() if answer_within else None):
                answer = await self._session.request(method, url, headers=headers, data=data, allow_redirects=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if data is not None and isinstance(error, TimeoutError) and answer_within is None:
                raise  # the upload's own deadline, told by its scope
            log.warning("private_api_away", error=type(error).__name__)
            raise Unavailable(_AWAY) from error
        if answer.status == 401:
            answer.close()
            log.error("internal_token_refused")
            raise Unavailable("The platform is misconfigured: its services do not share one INTERNAL_TOKEN.")
        return answer


class _Upload:
    """The client's body on its way: counts it, and gives each wait a deadline."""

    def __init__(self, request: Request, max_bytes: int, idle_seconds: float) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self.scope: asyncio.Timeout | None = None
        self.too_large = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body; ends the relayed request with an error when it grows too large or stalls."""
        seen = 0
        self._allow(self._idle_seconds)
        async for chunk in self._request.stream():
            seen += len(chunk)
            if seen > self._max_bytes:
                self.too_large = True
                raise aiohttp.ClientPayloadError("larger than the limit")
            if chunk:
                yield chunk
            self._allow(self._idle_seconds)
        self._allow(STORE.total_seconds())

    def _allow(self, seconds: float) -> None:
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(asyncio.get_running_loop().time() + seconds)


async def _back(answer: aiohttp.ClientResponse) -> Response:
    """The answer for the client: small ones whole, large ones as they come."""
    headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    length = answer.content_length
    if (length is not None and length <= _SMALL_BODY_BYTES) or answer.method == "HEAD":
        async with answer:
            body = await answer.read()
        if answer.method != "HEAD":
            headers.pop("content-length", None)
        return Response(body, answer.status, headers)
    return StreamingResponse(_stream(answer), answer.status, headers)


async def _stream(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        chunks = answer.content.iter_any()
        while True:
            async with asyncio.timeout(READ_IDLE.total_seconds()):
                chunk = await anext(chunks, b"")
            if not chunk:
                return
            yield chunk

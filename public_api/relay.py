"""Carries one request to private_api and its answer back, streaming, with a deadline on every wait.

It goes through aiohttp: for a call this small httpx costs ten times as much as the call itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from contracts.errors import OutcomeUnknown, Unavailable, UploadTooLarge
from service_kit.logging import get_logger

log = get_logger(__name__)

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
_PASSED_ON = frozenset({b"content-type", b"range", b"if-range", b"if-none-match", b"if-match", b"if-modified-since"})
_AWAY = "The platform's storage service does not answer now; nothing was lost, try again in a moment."
_LOST_ANSWER = (
    "The platform's storage service went away after it had the whole upload, and its answer is lost: the upload may be "
    "stored, or not. To send it again may make it twice."
)
_BROKEN = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class Deadlines:
    """How long each wait of the relay may take."""

    connect: timedelta = timedelta(seconds=3)
    """Until private_api accepts a connection."""
    answer: timedelta = timedelta(seconds=15)
    """Until it answers a request without a body, beyond the wait that the client asked for."""
    upload_idle: timedelta = timedelta(seconds=120)
    """The longest silence of the client, or refusal to take more by private_api, in mid-upload."""
    store: timedelta = timedelta(minutes=10)
    """After the last byte of an upload: sync to disk and check of the archive grow with the size."""
    download_idle: timedelta = timedelta(seconds=60)
    """The longest silence of private_api, or refusal to take more by the client, in mid-download."""


class Relay:
    """A pooled connection to private_api. Open it inside the running event loop, close it at the end.

    Once ``closing`` is set, requests that wait on purpose are answered as things stand.
    """

    def __init__(
        self, private_api_url: str, token: str, max_upload_bytes: int, deadlines: Deadlines, closing: asyncio.Event
    ) -> None:
        self._base = private_api_url.rstrip("/")
        self._token = token
        self._max_upload_bytes = max_upload_bytes
        self._deadlines = deadlines
        self._closing = closing
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; connects lazily, so private_api may come later."""
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),  # each waiting poll holds a connection
            timeout=aiohttp.ClientTimeout(total=None, connect=self._deadlines.connect.total_seconds()),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type", "User-Agent"),  # a request without a body has no type either
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
        answer = await self._send("GET", URL(self._base + "/health/ready"), {}, self._answer_within())
        status, body = answer.status, await self._read(answer)
        if status != 200:
            raise Unavailable(f"private_api is not ready: {body[:500].decode(errors='replace')}")

    async def forward(self, request: Request, path: str) -> Response:
        """Relay a request without a body; ``path`` is already percent-encoded.

        Raises
        ------
        Unavailable
            private_api is away, or does not answer in time.
        """
        return await self._ask(request, self._url(path, request))

    async def forward_poll(self, request: Request, path: str, wait: timedelta) -> Response:
        """Relay a request whose answer may take as long as ``wait``, which its query asks for; raises as ``forward``.

        When this server closes meanwhile, the question is asked again, without the query and so without waiting.
        """
        waiting = asyncio.ensure_future(self._ask(request, self._url(path, request), wait))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return await waiting
        finally:
            closing.cancel()
            waiting.cancel()
            await asyncio.gather(waiting, closing, return_exceptions=True)
        return await self._ask(request, URL(self._base + path, encoded=True))

    async def _ask(self, request: Request, url: URL, wait: timedelta = timedelta(0)) -> Response:
        return await self._back(await self._send(request.method, url, _headers_on(request), self._answer_within(wait)))

    async def forward_upload(self, request: Request, path: str) -> Response:
        """Relay a request with a body of any size.

        Raises
        ------
        UploadTooLarge
            The declared or the real size exceeds the limit.
        Unavailable
            private_api is away, now or in mid-upload.
        OutcomeUnknown
            It went away after the whole upload.
        HTTPException
            408: the client sent nothing for too long.
        """
        headers = _headers_on(request)
        declared = request.headers.get("content-length")
        if declared is not None:
            if int(declared) > self._max_upload_bytes:
                raise _too_large(self._max_upload_bytes)
            headers["Content-Length"] = declared
        upload = _Upload(request, self._max_upload_bytes, self._deadlines)
        return await self._back(
            await self._send(request.method, self._url(path, request), headers, upload.deadline, upload)
        )

    def _answer_within(self, wait: timedelta = timedelta(0)) -> asyncio.Timeout:
        return asyncio.timeout((self._deadlines.answer + wait).total_seconds())

    def _url(self, path: str, request: Request) -> URL:
        query = request.scope["query_string"].decode("latin-1")
        return URL(f"{self._base}{path}" + (f"?{query}" if query else ""), encoded=True)

    async def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        deadline: asyncio.Timeout,
        upload: "_Upload | None" = None,
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "open() comes first"  # noqa: S101
        data = upload.chunks() if upload is not None else None
        try:
            async with deadline:
                answer = await self._session.request(method, url, headers=headers, data=data, allow_redirects=False)
        except _BROKEN as error:
            if upload is not None:
                upload.raise_what_the_client_did()
                if upload.complete:
                    log.warning("private_api_away", error=type(error).__name__)
                    raise OutcomeUnknown(_LOST_ANSWER) from error
            raise _away(error) from error
        if answer.status == 401:
            answer.close()
            log.error("internal_token_refused")
            raise Unavailable("The platform is misconfigured: its services do not share one INTERNAL_TOKEN.")
        return answer

    async def _back(self, answer: aiohttp.ClientResponse) -> Response:
        """The answer for the client: small ones whole, large ones as they come."""
        headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        length = answer.content_length
        if answer.method == "HEAD" or (length is not None and length <= _SMALL_BODY_BYTES):
            return Response(await self._read(answer), answer.status, headers)
        return _Download(answer, headers, self._deadlines.download_idle)

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The whole body of a small answer; the connection goes back to the pool."""
        try:
            async with asyncio.timeout(self._deadlines.download_idle.total_seconds()), answer:
                return await answer.read()
        except _BROKEN as error:
            raise _away(error) from error


def _headers_on(request: Request) -> dict[str, str]:
    raw: list[tuple[bytes, bytes]] = request.scope["headers"]
    return {name.decode(): value.decode("latin-1") for name, value in raw if name in _PASSED_ON}


def _away(error: Exception) -> Unavailable:
    log.warning("private_api_away", error=type(error).__name__)
    return Unavailable(_AWAY)


def _too_large(limit: int) -> UploadTooLarge:
    return UploadTooLarge(f"The upload exceeds the limit of {limit} bytes (MAX_UPLOAD_BYTES).")


class _Upload:
    """The client's body on its way: counts it, gives each wait a deadline, and knows whose fault an end was."""

    def __init__(self, request: Request, max_bytes: int, deadlines: Deadlines) -> None:
        self.deadline = asyncio.timeout(None)
        self._request = request
        self._max_bytes = max_bytes
        self._deadlines = deadlines
        self.complete = False
        """Whether private_api was sent all of it."""
        self._waits_for_client = False
        self._fault: UploadTooLarge | ClientDisconnect | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body; ends the relayed request with an error when it grows too large or its client goes away."""
        seen = 0
        self._allow(self._deadlines.upload_idle, waits_for_client=True)
        try:
            async for chunk in self._request.stream():
                seen += len(chunk)
                if seen > self._max_bytes:
                    raise _too_large(self._max_bytes)
                if chunk:
                    self._allow(self._deadlines.upload_idle, waits_for_client=False)
                    yield chunk
                self._allow(self._deadlines.upload_idle, waits_for_client=True)
        except (UploadTooLarge, ClientDisconnect) as error:
            self._fault = error
            raise
        self.complete = True
        self._allow(self._deadlines.store, waits_for_client=False)

    def raise_what_the_client_did(self) -> None:
        """Raise the error that the client caused, if it was the client."""
        if self._fault is not None:
            raise self._fault
        if self.deadline.expired() and self._waits_for_client:
            seconds = self._deadlines.upload_idle.total_seconds()
            raise HTTPException(408, f"Nothing of the upload came for {seconds:g} s.", {"Connection": "close"})

    def _allow(self, time: timedelta, *, waits_for_client: bool) -> None:
        self._waits_for_client = waits_for_client
        if not self.deadline.expired():
            self.deadline.reschedule(asyncio.get_running_loop().time() + time.total_seconds())


class _Download(StreamingResponse):
    """A large answer on its way; broken off on one side, it breaks off on the other, and never ends well."""

    def __init__(self, answer: aiohttp.ClientResponse, headers: Mapping[str, str], idle: timedelta) -> None:
        super().__init__(self._chunks(), answer.status, headers)
        self._answer = answer
        self._idle = idle.total_seconds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream; lets go of private_api's connection even when the client left before the first byte."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._idle):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._answer.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        chunks = self._answer.content.iter_any()
        while True:
            async with asyncio.timeout(self._idle):
                chunk = await anext(chunks, b"")
            if not chunk:
                return
            yield chunk

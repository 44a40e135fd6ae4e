"""A private_api by script: records what the relay sends, and answers what a test says."""

import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


@dataclass
class Seen:
    """One request, as it came in."""

    method: str
    target: str
    """Path and query, byte for byte."""
    headers: dict[str, str]
    body: bytes = b""
    """The whole body, where it is small."""
    body_bytes: int = 0
    body_sha256: str = ""
    is_whole: bool = False
    """Whether the body came to its end."""


@dataclass
class Script:
    """How the next requests are answered."""

    status: int = 200
    body: bytes = b'{"detail": "scripted"}'
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    reads_body: bool = True
    """False: answer before the body was read."""
    stream: Callable[[], AsyncIterator[bytes]] | None = None
    """In place of ``body``."""
    holds_waiting: bool = False
    """True: a request with ``wait=`` in its query is not answered until its client gives up."""


class Upstream:
    """The app, and its memory."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.script = Script()
        self.ended_uploads = 0
        """How many bodies ended, whole or cut."""

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def answers(self, status: int, content: object = "scripted", **headers: str) -> None:
        """Answer with JSON from now on."""
        self.script = Script(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})

    def answers_bytes(self, status: int, body: bytes, **headers: str) -> None:
        self.script = Script(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        request = Request(scope, receive)
        query = scope["query_string"].decode()
        seen = Seen(request.method, scope["raw_path"].decode() + (f"?{query}" if query else ""), dict(request.headers))
        self.seen.append(seen)
        script = self.script
        if script.reads_body:
            with suppress(ClientDisconnect):
                await self._take_body(request, seen)
            self.ended_uploads += 1
        if script.holds_waiting and "wait=" in query:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await self._answer(script, scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _take_body(self, request: Request, seen: Seen) -> None:
        digest = hashlib.sha256()
        async for chunk in request.stream():
            digest.update(chunk)
            seen.body_bytes += len(chunk)
            if seen.body_bytes <= 2**20:
                seen.body += chunk
        seen.body_sha256, seen.is_whole = digest.hexdigest(), True

    async def _answer(self, script: Script, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in script.headers.items()]
        if script.stream is None:
            if not any(name == b"content-length" for name, _ in headers):
                headers.append((b"content-length", str(len(script.body)).encode()))
            await send({"type": "http.response.start", "status": script.status, "headers": headers})
            await send({"type": "http.response.body", "body": script.body})
            return
        await StreamingResponse(script.stream(), script.status, script.headers)(scope, receive, send)


@contextmanager
def raw_server(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server below HTTP: ``handle`` gets each accepted connection, in a thread, and its end closes it."""
    stopping = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            handle(connection)

    def accept() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve_one, args=(connection,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopping.set()
        acceptor.join(60)
        listener.close()
        for thread in threads:
            thread.join(60)


@contextmanager
def gagged_server() -> Iterator[str]:
    """Connections are accepted and nobody ever reads them: a stopped process looks like that."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

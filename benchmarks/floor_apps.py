"""The bare apps that HTTP measurements compare with: raw ASGI under uvicorn, without a framework or a middleware.

``FLOOR_APP`` names one: ``stores`` writes a body to the file FLOOR_FILE, ``sends`` answers with that file through
Starlette's FileResponse in reads of 1 MiB, ``answers`` gives a small JSON.
"""

import json
import os
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_BODY = json.dumps({"detail": "The task waits for a consumer; ask again.", "code": "pending"}).encode()
_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}
_END: dict[str, Any] = {"type": "http.response.body", "body": _BODY}


async def answers(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
    """Give the JSON."""
    await send(_START)
    await send(_END)


def stores(path: Path) -> ASGIApp:
    """Writes each body over the file; nothing is flushed, hashed or checked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with path.open("wb") as file:
            more = True
            while more:
                message = await receive()
                file.write(message.get("body", b""))
                more = message.get("more_body", False)
        await answers(scope, receive, send)

    return app


class LargeReads(FileResponse):
    """Reads as much at once as private_api does; Starlette's own 64 KiB are four times slower, and no floor."""

    chunk_size = 2**20


def sends(path: Path) -> ASGIApp:
    """Answers with the file."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await LargeReads(path)(scope, receive, send)

    return app


def main() -> None:
    """Serve the app that the environment names."""
    name, port = os.environ["FLOOR_APP"], int(os.environ["FLOOR_PORT"])
    path = Path(os.environ.get("FLOOR_FILE", ""))
    apps: dict[str, ASGIApp] = {"answers": answers, "stores": stores(path), "sends": sends(path)}
    uvicorn.run(apps[name], host="127.0.0.1", port=port, access_log=False, lifespan="off")


if __name__ == "__main__":
    main()

"""The floor: the same sum inside a bare raw-ASGI app under uvicorn. ``python -m benchmarks.online.floor PORT``."""

import json
import sys

import uvicorn
from starlette.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the JSON, add, answer."""
    if scope["type"] != "http":
        return
    message = await receive()
    numbers = json.loads(message["body"] or b'{"a": 0, "b": 0}')
    body = json.dumps({"result": numbers["a"] + numbers["b"]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), lifespan="off", access_log=False, log_level="error")

"""A small real HTTP server that speaks the batch wire to the letter, with tasks and mishaps as a test scripts them.

It serves the client's tests: what a real platform does in a good hour is tested with the real platform.
"""

import hashlib
import json
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from contracts.models import ModelView, RequestedLimits
from contracts.task_state import POLL_NOT_FOUND, POLL_OUTPUT_MISSING, POLL_STATUS, TaskState
from tests.support.wire_script import NOW, Mishap, ScriptedTask, Seen

_KEPT_BODY_BYTES = 16 * 2**20


class WireServer:
    """The scripted server's memory; tests write and read it."""

    def __init__(self) -> None:
        self.tasks: dict[str, ScriptedTask] = {}
        self.models: dict[str, ModelView] = {}
        self.mishaps: list[Mishap] = []
        self.seen: list[Seen] = []
        self.files: list[bytes] = []
        self.posted: list[ScriptedTask] = []
        """The tasks that the next posts become; a task of defaults when there is none."""
        self.holds_polls = False
        """Whether ``?wait=`` is obeyed; an older server answers at once."""
        self.url = ""
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    def task(self, uid: str, **script: Any) -> ScriptedTask:
        self.tasks[uid] = ScriptedTask(uid=uid, **script)
        return self.tasks[uid]

    def model(self, human_readable_id: str, **fields: Any) -> ModelView:
        shown: dict[str, Any] = {
            "uid": f"uid-of-{human_readable_id}",
            "human_readable_id": human_readable_id,
            "description": "",
            "container_tag": "registry.example.org/model:1",
            "use_gpu": False,
            "model_available": False,
            "input_mountpoint": "/input",
            "output_mountpoint": "/output",
            "model_mountpoint": "/model",
            "limits": RequestedLimits(),
            "content": None,
            "created_at": NOW,
        }
        self.models[human_readable_id] = ModelView.model_validate(shown | fields)
        return self.models[human_readable_id]

    def happens(self, method: str, path: str, **what: Any) -> None:
        self.mishaps.append(Mishap(method, path, **what))

    def requests(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method and re.fullmatch(path, seen.path)]

    def take_mishap(self, method: str, path: str) -> Mishap | None:
        with self._lock:
            for mishap in self.mishaps:
                if mishap.method == method and re.fullmatch(mishap.path, path):
                    mishap.times -= 1
                    if mishap.times == 0:
                        self.mishaps.remove(mishap)
                    return mishap
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_HttpServer"

    def log_message(self, *_: Any) -> None:
        """Tests look at what was seen, not at a log."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        wire = self.server.wire
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        mishap = wire.take_mishap(self.command, self.route)
        if mishap is not None and mishap.before_body:
            self._see(0)
            self._answer_error(
                mishap.status or 500, mishap.detail, mishap.code, mishap.headers | {"Connection": "close"}
            )
            self.close_connection = True
            return
        body = self._read_body()
        self.cut_after = mishap.cut_after if mishap is not None else None
        if self.cut_after == -1:
            self._cut()
        elif mishap is not None and mishap.body is not None:
            self._answer(mishap.status or 500, mishap.body, "text/html", mishap.headers)
        elif mishap is not None and mishap.status is not None:
            self._answer_error(mishap.status, mishap.detail, mishap.code, mishap.headers)
        else:
            self._route(body)

    def _see(self, body_bytes: int) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.wire.seen.append(Seen(self.command, self.route, self.query, headers, body_bytes))

    def _read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        kept = b""
        left = length
        while left and (chunk := self.rfile.read(min(2**20, left))):
            left -= len(chunk)
            if length <= _KEPT_BODY_BYTES:
                kept += chunk
        self._see(length - left)
        return kept

    def _route(self, body: bytes) -> None:
        if self.route == "/api/tasks/" and self.command == "POST":
            self._post_task(body)
        elif self.route == "/api/models/" and self.command == "POST":
            self._post_model(body)
        elif self.route == "/api/models/":
            self._answer_json([view.model_dump(mode="json") for view in self.server.wire.models.values()])
        elif match := re.fullmatch(r"/api/models/([^/]+)", self.route):
            self._one_model(match[1])
        elif match := re.fullmatch(r"/api/tasks/([^/]+)(/status|/logs|/cancel)?", self.route):
            self._one_task(match[1], match[2])
        else:
            self._answer_error(404, "Not Found", "http_error")

    def _one_task(self, uid: str, what: str | None) -> None:
        task = self.server.wire.tasks.get(uid)
        if task is None:
            is_poll = what is None and self.command == "GET"
            self._answer_error(POLL_NOT_FOUND if is_poll else 404, "No such task.", "unknown_task")
        elif what == "/status":
            self._answer_json(task.status().model_dump(mode="json"))
        elif what == "/logs":
            self._answer(200, task.log.encode(), "text/plain; charset=utf-8")
        elif what == "/cancel":
            self._cancel(task)
        elif self.command == "DELETE":
            del self.server.wire.tasks[uid]
            self._answer_json({"detail": "deleted"})
        else:
            self._poll(task)

    def _post_task(self, body: bytes) -> None:
        wire = self.server.wire
        model = self.query["model_human_readable_id"][0]
        if model not in wire.models:
            return self._answer_error(404, f"No model is registered as {model!r}.", "unknown_model")
        if body:
            wire.files.append(self._file_in(body))
        task = wire.posted.pop(0) if wire.posted else ScriptedTask(uid=f"{len(wire.tasks):02d}" + "x" * 41)
        task.model = model
        wire.tasks[task.uid] = task
        return self._answer_json(task.uid)

    def _file_in(self, body: bytes) -> bytes:
        boundary = re.fullmatch(r"multipart/form-data; boundary=(\w+)", self.headers["Content-Type"])
        assert boundary is not None
        head, _, rest = body.partition(b"\r\n\r\n")
        assert head.startswith(b"--" + boundary[1].encode() + b"\r\n"), head
        assert b'name="zip_file"; filename="' in head, head
        file, _, end = rest.rpartition(b"\r\n--" + boundary[1].encode())
        assert end == b"--\r\n", end
        return file

    def _post_model(self, body: bytes) -> None:
        wire = self.server.wire
        name = self.query["human_readable_id"][0]
        if name in wire.models:
            return self._answer_error(409, f"{name!r} is taken.", "duplicate_model")
        if body:
            wire.files.append(self._file_in(body))
        limits: dict[str, Any] = {
            limit: self.query[limit] if limit == "capabilities" else self.query[limit][0]
            for limit in RequestedLimits.model_fields
            if limit in self.query
        }
        view = wire.model(name, container_tag=self.query["container_tag"][0], limits=limits)
        return self._answer_json(view.model_dump(mode="json"))

    def _one_model(self, name: str) -> None:
        view = self.server.wire.models.get(name)
        if view is None:
            return self._answer_error(404, f"No model is registered as {name!r}.", "unknown_model")
        if self.command == "DELETE":
            del self.server.wire.models[name]
        return self._answer_json(view.model_dump(mode="json"))

    def _cancel(self, task: ScriptedTask) -> None:
        if task.state.is_final:
            return self._answer_error(409, f"The task is {task.state} already.", "illegal_transition")
        task.states = [TaskState.CANCELLED]
        return self._answer_json({"detail": "cancelled"})

    def _poll(self, task: ScriptedTask) -> None:
        wire = self.server.wire
        wait = float(self.query.get("wait", ["0"])[0])
        assert wait <= 60
        state = task.look()
        if wire.holds_polls and not state.is_final:
            wire.stopping.wait(wait)
            state = task.state
        if state is not TaskState.FINISHED:
            return self._answer_error(POLL_STATUS[state], task.error or f"The task is {state}.", "task")
        if task.output_gone:
            return self._answer_error(POLL_OUTPUT_MISSING, "The output was cleaned away.", "output_gone")
        return self._send_output(task.output)

    def _send_output(self, output: bytes) -> None:
        etag = f'"{hashlib.sha256(output).hexdigest()}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or self.headers.get("If-Range", etag) != etag:
            return self._answer(200, output, "application/zip", headers)
        start, end = int(asked[1]), int(asked[2] or len(output) - 1)
        if start >= len(output):
            return self._answer_error(416, "The range begins behind the end.", "http_error")
        part = output[start : end + 1]
        content_range = f"bytes {start}-{start + len(part) - 1}/{len(output)}"
        return self._answer(206, part, "application/zip", headers | {"Content-Range": content_range})

    def _answer_json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(content).encode(), "application/json", headers)

    def _answer_error(self, status: int, detail: str, code: str, headers: dict[str, str] | None = None) -> None:
        self._answer_json({"detail": detail, "code": code}, status, headers)

    def _answer(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status, "Scripted")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        cut_after = getattr(self, "cut_after", None)
        if cut_after is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[:cut_after])
        self._cut()

    def _cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, wire: WireServer) -> None:
        self.wire = wire
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests; anything else is a mistake to be seen."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def running_wire_server(tls: ssl.SSLContext | None = None) -> Iterator[WireServer]:
    """The server on a port of its own."""
    wire = WireServer()
    server = _HttpServer(wire)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    wire.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield wire
    finally:
        wire.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(60)

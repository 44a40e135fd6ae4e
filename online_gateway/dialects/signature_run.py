"""The microservice gateway's wire: a call's SIGNATURE names the endpoint; one route each looks, starts and stops.

What its clients rely on: SIGNATURE is taken out before the endpoint sees the rest; an answer is the endpoint's object
with ``time``, ``ver`` and, where the endpoint gives one, ``worker_ver``; whatever fails is an object with ``ERROR``.
That gateway answered its errors with status 200; here the status says it too. Its DEFAULT_SERVER was waited for at the
start and never answered a call without SIGNATURE; nor does it here.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.types import Scope

from contracts.errors import Conflict, InvalidRequest, PlatformError
from contracts.inference import UNREADABLE, EndpointNotReady, InferCall, ModelFailed, UnknownEndpoint
from contracts.worker_protocol import Notification
from online_gateway.dialects.base import DialectServices, Headers, HotRequest, Reply
from online_gateway.dialects.errors import generation_header
from online_gateway.dialects.routes import ColdHandler, Routes, described_body, read_body

SIGNATURE = "SIGNATURE"
STATUS = "SYSTEM_STATUS"
SHUTDOWN_COMMAND = "SAFE_KILL_SERVER_CMD"

_BYTES_PER_GB = 2**30
_MEMORY_INFO = "Memory Size is in GB. Total and avail mem may be reported inconsistently in containers."
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_MAX_CONTROL_BYTES = 2**20
_MOST_DIGITS = 9
_FORM = b"application/x-www-form-urlencoded"

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode

_BODY = described_body({"type": "object", "properties": {SIGNATURE: {"type": "string"}}})

Document = dict[str, Any]
Action = Callable[[Document, Scope], Awaitable[Reply]]


class _NoSignature(InvalidRequest):
    def __init__(self) -> None:
        super().__init__("SIGNATURE is missing: it must be one of AVAIL_SERVERS.")


def dialect(services: DialectServices) -> Routes:
    """The dialect."""
    return SignatureRun(services).routes


class SignatureRun:
    """What stands behind its routes: calls, which are hot, and control."""

    def __init__(self, services: DialectServices) -> None:
        self._dataplane = services.dataplane
        self._control = services.control
        self._access = services.access
        self._max_call_bytes = services.max_call_bytes
        self._version = services.control.version
        self._second = -1
        self._time = ""
        self.routes = Routes("microservice gateway", self._error, services.max_call_bytes)
        self._add_routes(self.routes, services.run_path)

    def _add_routes(self, routes: Routes, run_path: str) -> None:
        get, post = ("GET",), ("POST",)
        summary = "Call the endpoint that SIGNATURE names; without a body: the system's status."
        routes.add_hot((*get, *post), run_path, self._run, summary, **_BODY)
        for path, action, is_to_look in (
            ("/list_servers", self._list_servers, True),
            ("/system_status", self._system_status, True),
            ("/notifications", self._notifications, True),
            ("/start_server", self._start_server, False),
            ("/kill_server", self._kill_server, False),
            ("/update_workers", self._update_workers, False),
            ("/shutdown", self._shutdown, False),
            ("/support_update_status", self._support_update_status, False),
        ):
            summary = action.__doc__ or ""
            if is_to_look:
                routes.add(get, path, _acting(action), summary)
            routes.add(post, path, _acting(action), summary, **_BODY)
        routes.close()

    # Calls

    async def _run(self, request: HotRequest) -> Reply:
        body = await request.body(self._max_call_bytes)
        document = _document(request.scope, body)
        name = document.pop(SIGNATURE, None)
        if type(name) is not str or name == STATUS:
            if name == STATUS or STATUS in document or not (document or body):
                return await self._system_status(document, request.scope)
            raise _NoSignature
        result = await self._dataplane.infer(InferCall(name, document), request.gone)
        answer = result.document
        if type(answer) is not dict:
            answer = {"data": answer}
        if result.worker_version is not None and "worker_ver" not in answer:
            answer["worker_ver"] = result.worker_version
        return self._reply(answer, 200, (generation_header(result.generation),))

    def _reply(self, answer: Document, status: int = 200, headers: Headers = ()) -> Reply:
        now = time.time()
        if not self._second <= now < self._second + 1:
            self._second = int(now)
            self._time = time.strftime(_TIME_FORMAT, time.localtime(now))
        answer["time"] = self._time
        answer["ver"] = self._version
        try:
            return Reply(status, _encode(answer), headers=headers)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ModelFailed(f"The endpoint's answer cannot be written as JSON: {error}.") from error

    def _error(self, status: int, message: str, error: PlatformError | None) -> Reply:
        answer: Document = {"ERROR": message}
        if isinstance(error, UnknownEndpoint | _NoSignature):
            answer["AVAIL_SERVERS"] = self._servers()
        return self._reply(answer, status)

    # Control

    def _servers(self) -> list[str]:
        return [info.name for info in self._control.endpoints() if info.state != "disabled"]

    async def _list_servers(self, _: Document, __: Scope) -> Reply:
        """The signatures that can be called."""
        return Reply(200, _encode({"AVAIL_SERVERS": self._servers()}))

    async def _system_status(self, _: Document, __: Scope) -> Reply:
        """The memory of the machine, in GB, and what the support processes posted last."""
        memory = await self._control.memory()
        servers = sum(memory.endpoints.values())
        status: Document = {
            "info": _MEMORY_INFO,
            "mem_avail": _gb(memory.available),
            "mem_gateway": _gb(memory.gateway),
            "mem_servers": {name: _gb(size) for name, size in memory.endpoints.items()},
            "mem_sys": _gb(memory.system),
            "mem_total": _gb(memory.total),
            "mem_used": _gb(memory.gateway + servers),
        }
        if posted := self._control.support_statuses():
            status["system_support_services"] = posted
        return self._reply({STATUS: status})

    async def _notifications(self, document: Document, _: Scope) -> Reply:
        """What the workers of SIGNATURE wanted to be known since the last call."""
        taken = self._control.take_notifications(_signature(document))
        return self._reply({"GENERAL": [_as_seen(notification) for notification in taken]})

    async def _start_server(self, document: Document, scope: Scope) -> Reply:
        """Start the workers of SIGNATURE again. Needs the admin's rights."""
        self._access.require_admin(scope)
        name = _signature(document)
        if self._control.endpoint(name).state not in {"disabled", "given_up"}:
            raise Conflict(f"Signature {name} is started already.")
        await self._control.start(name)
        started = self._control.endpoint(name)
        if started.state == "given_up":
            raise EndpointNotReady(f"Signature {name} was started and cannot answer. {started.reason}")
        return self._reply({"MESSAGE": "OK."})

    async def _kill_server(self, document: Document, scope: Scope) -> Reply:
        """Stop the workers of SIGNATURE. Needs the admin's rights."""
        self._access.require_admin(scope)
        await self._control.kill(_signature(document))
        return self._reply({"MESSAGE": "OK."})

    async def _update_workers(self, document: Document, scope: Scope) -> Reply:
        """Keep NR_WORKERS workers for SIGNATURE from now on. Needs the admin's rights."""
        self._access.require_admin(scope)
        name, number = _signature(document), str(document.get("NR_WORKERS", ""))
        if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS):
            raise InvalidRequest("NR_WORKERS must be a number of workers, such as 2.")
        await self._control.resize(name, int(number))
        return self._reply({"MESSAGE": "OK."})

    async def _shutdown(self, document: Document, scope: Scope) -> Reply:
        """Stop everything in order, for the supervisor outside to start it again. Needs the admin's rights."""
        self._access.require_admin(scope)
        if _signature(document).upper() != SHUTDOWN_COMMAND:
            raise InvalidRequest(f"To stop everything, SIGNATURE must be {SHUTDOWN_COMMAND}.")
        self._control.request_shutdown()
        return self._reply({"MESSAGE": "OK. Everything stops."})

    async def _support_update_status(self, document: Document, scope: Scope) -> Reply:
        """Where support processes of this machine post their figures; the system's status shows them."""
        self._access.require_own_machine(scope)
        name = _signature(document)
        self._control.add_support_status(name, {key: value for key, value in document.items() if key != SIGNATURE})
        return self._reply({"MESSAGE": "OK."})


def _acting(action: Action) -> ColdHandler:
    async def act(request: Request) -> Reply:
        body = await read_body(request, _MAX_CONTROL_BYTES)
        return await action(_document(request.scope, body), request.scope)

    return act


def _document(scope: Scope, body: bytes) -> Document:
    """What was sent, as a new object: JSON, or what a form or a GET's query says, whose values are all texts."""
    try:
        return _decode(body) if body else _fields(scope["query_string"])
    except UNREADABLE as error:
        if dict(scope["headers"]).get(b"content-type", b"").startswith(_FORM) and (fields := _fields(body)):
            return fields
        raise InvalidRequest(f"The body must be a JSON object: {error}.") from error


def _fields(text: bytes) -> Document:
    return dict(parse_qsl(text.decode("utf-8", "replace")))


def _signature(document: Document) -> str:
    name = document.get(SIGNATURE)
    if not isinstance(name, str):
        raise _NoSignature
    return name


def _gb(size: int) -> float:
    return round(size / _BYTES_PER_GB, 2)


def _as_seen(notification: Notification) -> Document:
    return {
        "NOTIFICATION_TYPE": notification.kind,
        "MODULE": notification.endpoint,
        "NOTIF": notification.message,
        "time": time.strftime(_TIME_FORMAT, time.localtime(notification.unix_time)),
    }

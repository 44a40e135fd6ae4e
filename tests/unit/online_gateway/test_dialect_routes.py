"""A dialect's routes answer in its own words whatever happens, as hot routes and as those of FastAPI."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message

from contracts.errors import Conflict, Forbidden, PlatformError, Unauthorized, UploadTooLarge
from contracts.inference import (
    DeadlineExceeded,
    EndpointNotReady,
    InvalidInput,
    ModelFailed,
    QueueFull,
    SwapFailed,
    SwapReport,
    UnknownEndpoint,
    WorkerLost,
)
from online_gateway.dialects import base
from online_gateway.dialects.base import BodyTooLarge, BodyTooSlow, ClientGone, HotRequest, Reply
from online_gateway.dialects.hot_door import HotDoor
from online_gateway.dialects.routes import Routes, read_body

LIMIT = 100

FAILURES: list[tuple[Exception, int, dict[str, str]]] = [
    (InvalidInput("no"), 422, {}),
    (UnknownEndpoint("no"), 404, {}),
    (EndpointNotReady("no"), 503, {"retry-after": "2"}),
    (QueueFull("no", 7), 429, {"retry-after": "7"}),
    (DeadlineExceeded("no"), 504, {}),
    (WorkerLost("no"), 502, {}),
    (ModelFailed("no", "trace"), 500, {}),
    (SwapFailed(SwapReport("x", 2, accepted=False, workers=[], message="no")), 422, {}),
    (UploadTooLarge("no"), 413, {}),
    (Conflict("no"), 409, {}),
    (Unauthorized("no"), 401, {}),
    (Forbidden("no"), 403, {}),
]


def in_words(status: int, message: str, error: PlatformError | None) -> Reply:
    return Reply(status, f"{status}|{message}|{type(error).__name__}".encode(), b"text/words")


async def echo(request: HotRequest) -> Reply:
    names = request.match.groupdict() if request.match else {}
    return Reply(200, await request.body(LIMIT) + repr(names).encode(), b"text/words", ((b"x-more", b"yes"),))


async def cold_echo(request: Request) -> Reply:
    return Reply(200, await read_body(request, LIMIT) + repr(request.path_params).encode(), b"text/words")


def raising(error: BaseException) -> Callable[[Any], Awaitable[Reply]]:
    async def handler(_: Any) -> Reply:
        raise error

    return handler


def served(handler: Any = echo, cold_handler: Any = cold_echo, *, by_the_door: bool = True) -> ASGIApp:
    routes = Routes("words", in_words, LIMIT)
    routes.add_hot(("POST",), "/hot/{name}/call.it", handler, "Call.")
    routes.add_hot(("GET", "POST"), "/hot", handler, "Call.")
    routes.add(("PUT",), "/hot/{name}", cold_handler, "Put.")
    routes.close(["/hot"])
    app = FastAPI(redirect_slashes=False)
    app.include_router(routes.router)
    return HotDoor(app, [routes]) if by_the_door else app


def asked(app: ASGIApp, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://words") as client:
            return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(ask())


both_ways = pytest.mark.parametrize("by_the_door", [True, False])


@both_ways
def test_a_hot_route_gets_its_body_and_the_parts_of_its_path(by_the_door: bool) -> None:
    app = served(by_the_door=by_the_door)

    answer = asked(app, "POST", "/hot/mine.onnx/call.it", b"body")

    assert (answer.status_code, answer.text) == (200, "body{'name': 'mine.onnx'}")
    assert answer.headers["content-type"] == "text/words"
    assert answer.headers["x-more"] == "yes"
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]
    assert asked(app, "GET", "/hot").text == "{}"
    assert asked(app, "POST", "/hot/mine/callXit").status_code == 404


def test_a_cold_route_gets_its_body_and_the_parts_of_its_path() -> None:
    assert asked(served(), "PUT", "/hot/mine", b"body").text == "body{'name': 'mine'}"


@both_ways
@pytest.mark.parametrize(("error", "status", "headers"), FAILURES)
def test_an_error_is_told_in_the_dialect_s_words(
    error: Exception, status: int, headers: dict[str, str], by_the_door: bool
) -> None:
    app = served(raising(error), raising(error), by_the_door=by_the_door)

    for answer in (asked(app, "GET", "/hot"), asked(app, "PUT", "/hot/x")):
        assert (answer.status_code, answer.text) == (status, f"{status}|no|{type(error).__name__}")
        assert {name: answer.headers[name] for name in headers} == headers


@both_ways
def test_a_mistake_of_ours_is_told_in_the_dialect_s_words_without_its_content(by_the_door: bool) -> None:
    app = served(raising(ValueError("secret")), raising(ValueError("secret")), by_the_door=by_the_door)

    for answer in (asked(app, "GET", "/hot"), asked(app, "PUT", "/hot/x")):
        assert answer.status_code == 500
        assert answer.text.startswith("500|The server met an error")
        assert "secret" not in answer.text


@both_ways
def test_a_body_that_is_too_long_is_refused(by_the_door: bool) -> None:
    app = served(by_the_door=by_the_door)
    most, more = b"x" * LIMIT, b"x" * (LIMIT + 1)

    for method, path in (("POST", "/hot"), ("PUT", "/hot/x")):
        assert asked(app, method, path, most).status_code == 200
        assert asked(app, method, path, more).text.startswith("413|")


def test_an_answer_that_the_framework_would_give_is_told_in_the_dialect_s_words() -> None:
    app = served(cold_handler=raising(HTTPException(408, "late")))

    assert asked(app, "PUT", "/hot/x").text == "408|late|NoneType"


@both_ways
@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("DELETE", "/hot", 405, "GET, POST"),
        ("GET", "/hot/x/call.it", 405, "POST"),
        ("GET", "/hot/x", 405, "PUT"),
        ("GET", "/hot/x/y/z", 404, None),
        ("OPTIONS", "/hot/", 404, None),
    ],
)
def test_other_methods_and_paths_are_answered_in_the_dialect_s_words(
    method: str, path: str, status: int, allow: str | None, by_the_door: bool
) -> None:
    answer = asked(served(by_the_door=by_the_door), method, path)

    assert answer.status_code == status
    assert answer.text.startswith(f"{status}|")
    assert answer.headers.get("allow") == allow


async def passes(handler: Any) -> Sequence[Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await served(handler)({"type": "http", "method": "GET", "path": "/hot", "headers": []}, receive, send)
    return sent


@pytest.mark.parametrize("handler", [echo, raising(ClientGone()), raising(asyncio.CancelledError())])
def test_a_client_that_went_away_is_answered_nothing(handler: Any) -> None:
    assert asyncio.run(passes(handler)) == []


def test_a_handler_that_is_cancelled_ends_cancelled() -> None:
    async def waits(_: Any) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async def cancelled() -> bool:
        task = asyncio.create_task(passes(waits))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())


def test_a_body_of_another_error_class_is_refused_as_too_long() -> None:
    assert asked(served(raising(BodyTooLarge())), "GET", "/hot").text == f"413|A call may have {LIMIT} bytes.|NoneType"
    assert asked(served(raising(BodyTooSlow())), "GET", "/hot").status_code == 408


def test_the_description_of_the_api_has_every_route_with_its_parts() -> None:
    paths = asked(served(), "GET", "/openapi.json").json()["paths"]

    assert {path: sorted(methods) for path, methods in paths.items()} == {
        "/hot/{name}/call.it": ["post"],
        "/hot": ["get", "post"],
        "/hot/{name}": ["put"],
    }
    assert paths["/hot/{name}"]["put"]["parameters"][0]["name"] == "name"


def test_a_body_of_which_the_rest_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PIECE_SECONDS", 0.01)
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if pieces:
            return pieces.pop()
        await asyncio.sleep(30)
        raise AssertionError

    with pytest.raises(BodyTooSlow):
        asyncio.run(HotRequest({"type": "http", "headers": []}, receive, None).body(LIMIT))

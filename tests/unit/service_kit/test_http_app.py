import socket
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from contracts import errors
from contracts.errors import Conflict, NotFound, PlatformError, StorageFull, Unavailable
from service_kit.health import Check, health_router
from service_kit.http_app import create_app, status_of
from service_kit.lifecycle import bind
from tests.support.http_server import serving
from tests.unit.contracts.test_errors import KINDS

STATUSES = {
    "invalid_request": 422,
    "limit_above_ceiling": 422,
    "hostile_archive": 422,
    "not_an_archive": 415,
    "upload_too_large": 413,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_task": 404,
    "conflict": 409,
    "duplicate_model": 409,
    "illegal_transition": 409,
    "claim_refused": 409,
    "stale_attempt": 409,
    "unauthorized": 401,
    "forbidden": 403,
    "unavailable": 503,
    "storage_full": 507,
    "outcome_unknown": 503,
    "platform_error": 500,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_each_error_has_the_http_status_that_the_wire_promises(kind: type[PlatformError]) -> None:
    error = errors.IllegalTransition("a", "b") if kind is errors.IllegalTransition else kind("why")

    assert status_of(error) == STATUSES[kind.code]


def _app(database: Check, broker: Check) -> FastAPI:
    app = create_app("example", "")
    app.include_router(health_router({"database": database}, {"broker": broker}))

    @app.get("/raise/{code}")
    async def fail(code: str) -> None:
        raise errors.error_for(code, "why")

    @app.get("/crash")
    async def crash() -> None:
        raise ZeroDivisionError("an inner detail")

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    return app


async def _well() -> None:
    return


async def _ill() -> None:
    raise Unavailable("it is away")


async def _refused() -> None:
    raise ConnectionRefusedError(111, "Connection refused")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(_app(_well, _ill)) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("kind", [NotFound, Conflict, StorageFull], ids=lambda kind: kind.code)
def test_an_error_is_answered_with_status_code_and_detail(client: httpx.Client, kind: type[PlatformError]) -> None:
    answer = client.get(f"/raise/{kind.code}")

    assert (answer.status_code, answer.json()) == (STATUSES[kind.code], {"detail": "why", "code": kind.code})


def test_unavailable_says_when_to_try_again(client: httpx.Client) -> None:
    answer = client.get("/raise/unavailable")

    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)


def test_an_unforeseen_error_is_a_500_that_tells_nothing_of_the_inside(client: httpx.Client) -> None:
    answer = client.get("/crash")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["connection"] == "close", "uvicorn ends the connection; the next call must not meet its end"
    assert "inner" not in answer.text


def test_a_wrong_query_is_told_by_name(client: httpx.Client) -> None:
    answer = client.get("/number?n=x")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "query.n" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "target", "status"), [("GET", "/nothing", 404), ("POST", "/number", 405)])
def test_errors_of_the_router_have_the_same_body(client: httpx.Client, method: str, target: str, status: int) -> None:
    answer = client.request(method, target)

    assert (answer.status_code, set(answer.json())) == (status, {"detail", "code"})


def test_an_optional_dependency_is_shown_and_does_not_decide(client: httpx.Client) -> None:
    answer = client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "dependencies": {"database": "ok", "broker": "it is away"}}


@pytest.mark.parametrize(("check", "words"), [(_ill, "it is away"), (_refused, "Connection refused")])
def test_a_required_dependency_decides_and_is_named(check: Check, words: str) -> None:
    with serving(_app(check, _well)) as url:
        ready, live = httpx.get(url + "/health/ready"), httpx.get(url + "/health/live")

    assert (ready.status_code, live.status_code) == (503, 200)
    assert words in ready.json()["dependencies"]["database"]


def test_a_taken_port_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_a_bound_port_may_be_on_either_family() -> None:
    with bind("127.0.0.1", 0) as four:
        assert four.family == socket.AF_INET
    try:
        with bind("::1", 0) as six:
            assert six.family == socket.AF_INET6
    except OSError:
        assert not socket.has_ipv6 or not _has_ipv6_loopback()


def _has_ipv6_loopback() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True

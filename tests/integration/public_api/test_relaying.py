"""What goes through the relay, and what does not."""

import json
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from contracts import routes
from tests.integration.public_api.conftest import TOKEN
from tests.support.platform import Service
from tests.support.upstream import Script, Upstream
from tests.support.waiting import eventually

UID = "Zm9vYmFy-_0123456789abcdefghijklmnopqrstuvw"

NO_BODY = [
    ("GET", f"/api/tasks/{UID}"),
    ("GET", f"/api/tasks/{UID}?wait=0.5"),
    ("HEAD", f"/api/tasks/{UID}"),
    ("DELETE", f"/api/tasks/{UID}"),
    ("GET", f"/api/tasks/{UID}/status"),
    ("GET", f"/api/tasks/{UID}/logs"),
    ("POST", f"/api/tasks/{UID}/cancel"),
    ("GET", "/api/models/"),
    ("GET", "/api/models/ct.body-mask_2"),
    ("DELETE", "/api/models/ct.body-mask_2"),
]


@pytest.mark.parametrize(("method", "target"), NO_BODY)
def test_a_call_without_a_body_reaches_private_api_as_it_is(
    client: httpx.Client, upstream: Upstream, method: str, target: str
) -> None:
    answer = client.request(method, target)

    assert answer.status_code == 200
    assert upstream.last.method == method
    assert upstream.last.target.replace("%2E", ".") == target
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("path", [routes.TASKS, routes.MODELS])
def test_an_upload_reaches_private_api_with_query_and_body_untouched(
    client: httpx.Client, upstream: Upstream, path: str
) -> None:
    query = "model_human_readable_id=a%20b%2Fc&use_gpu=True&x=%C3%BC&x=2&description=1+1%3D2"
    body = b"--b\r\nraw \x00\xff bytes\r\n--b--\r\n"

    answer = client.post(f"{path}?{query}", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert answer.json() == {"detail": "scripted"}
    assert upstream.last.target == f"{path}?{query}"
    assert upstream.last.body == body
    assert upstream.last.headers["content-type"] == "multipart/form-data; boundary=b"
    assert upstream.last.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("path", ["/api/tasks", "/api/models"])
def test_a_post_without_the_trailing_slash_is_the_same_post(
    client: httpx.Client, upstream: Upstream, path: str
) -> None:
    client.post(path + "?a=1", content=b"x")

    assert upstream.last.target == f"{path}/?a=1"


def test_a_chunked_upload_stays_chunked(client: httpx.Client, upstream: Upstream) -> None:
    client.post("/api/tasks/", content=iter([b"one ", b"two ", b"three"]))

    assert upstream.last.body == b"one two three"
    assert upstream.last.headers["transfer-encoding"] == "chunked"


def test_an_empty_upload_is_relayed_too(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers(422, {"detail": "no zip_file", "code": "invalid_request"})

    answer = client.post("/api/tasks/")

    assert (answer.status_code, answer.json()["detail"]) == (422, "no zip_file")
    assert upstream.last.body_bytes == 0


def test_private_api_gets_the_internal_token_and_nothing_of_the_clients_credentials(
    client: httpx.Client, upstream: Upstream
) -> None:
    client.get(f"/api/tasks/{UID}", headers={"Authorization": "Bearer a-users-own", "Cookie": "session=1"})
    client.post("/api/tasks/", content=b"x", headers={"Authorization": "Basic dXNlcjpwdw=="})

    assert [seen.headers["authorization"] for seen in upstream.seen] == [f"Bearer {TOKEN}"] * 2
    assert not any("cookie" in seen.headers for seen in upstream.seen)


def test_a_cookie_from_behind_is_neither_passed_nor_kept(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers(200, "x", **{"Set-Cookie": "a=1; Path=/"})

    first = client.get(f"/api/tasks/{UID}")
    client.cookies.clear()
    client.get(f"/api/tasks/{UID}")

    assert "set-cookie" not in first.headers
    assert "cookie" not in upstream.last.headers


@pytest.mark.parametrize("status", [551, 552, 553, 554, 404, 409, 415, 422, 500, 507])
@pytest.mark.parametrize("target", [f"/api/tasks/{UID}", f"/api/tasks/{UID}?wait=0"])
def test_an_error_of_private_api_comes_with_its_status_and_body(
    client: httpx.Client, upstream: Upstream, status: int, target: str
) -> None:
    upstream.answers(status, {"detail": "Why it is so.", "code": "some_code"})

    answer = client.get(target)

    assert answer.status_code == status
    assert answer.json() == {"detail": "Why it is so.", "code": "some_code"}


def test_a_503_of_private_api_keeps_its_retry_after(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers(503, {"detail": "busy", "code": "unavailable"}, **{"Retry-After": "7"})

    answer = client.get(f"/api/tasks/{UID}")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


def test_a_range_goes_there_and_a_part_comes_back(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers_bytes(
        206,
        b"cde",
        Content_Type="application/zip",
        Content_Range="bytes 2-4/26",
        Accept_Ranges="bytes",
        ETag='"abc"',
    )

    answer = client.get(f"/api/tasks/{UID}", headers={"Range": "bytes=2-4", "If-Range": '"abc"'})

    assert (answer.status_code, answer.content) == (206, b"cde")
    assert answer.headers["content-range"] == "bytes 2-4/26"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == '"abc"'
    assert answer.headers["content-type"] == "application/zip"
    assert (upstream.last.headers["range"], upstream.last.headers["if-range"]) == ("bytes=2-4", '"abc"')


def test_a_304_has_no_body(client: httpx.Client, upstream: Upstream) -> None:
    upstream.script = Script(304, b"", {"ETag": '"abc"'})

    answer = client.get(f"/api/tasks/{UID}", headers={"If-None-Match": '"abc"'})

    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"abc"')
    assert upstream.last.headers["if-none-match"] == '"abc"'


def test_a_head_tells_the_length_without_the_body(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers_bytes(200, b"", Content_Type="application/zip", Content_Length="123456789", ETag='"abc"')

    answer = client.head(f"/api/tasks/{UID}")

    assert answer.status_code == 200
    assert (answer.headers["content-length"], answer.headers["etag"]) == ("123456789", '"abc"')
    assert client.get("/health/live").status_code == 200


def test_an_answer_of_unknown_length_comes_whole(client: httpx.Client, upstream: Upstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"0123456789" * 1000

    upstream.script = Script(200, headers={"Content-Type": "text/plain"}, stream=pieces)

    answer = client.get(f"/api/tasks/{UID}/logs")

    assert answer.content == b"0123456789" * 100_000


def _raw_get(process: Service, target: str) -> bytes:
    """The status line of a request that no client library has tidied up."""
    with socket.create_connection(("127.0.0.1", httpx.URL(process.url).port), timeout=10) as link:  # type: ignore[attr-defined]
        link.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return link.makefile("rb").readline()


@pytest.mark.parametrize(
    "target",
    [
        "/api/tasks/..",
        "/api/tasks/%2e%2e",
        "/api/tasks/../status",
        "/api/tasks/%2e%2e/status",
        "/api/tasks/..%2f..%2finternal%2fplatform",
        "/api/tasks/%2e%2e%2f%2e%2e%2finternal%2fplatform",
        "/api/tasks/x%252f..%252f..%252finternal/status",
        "/api/tasks/x%3fy=1%23z",
        "/api/tasks/x%0d%0aX-Evil:%201",
        "/api/tasks/%00",
        "/api/models/..%2finternal",
        "/api/models/..",
        "/internal/platform",
        "/api/../internal/platform",
        "//internal/platform",
        "/health/../internal/platform",
    ],
)
def test_no_path_climbs_out_of_the_public_routes(process: Service, upstream: Upstream, target: str) -> None:
    line = _raw_get(process, target)

    assert line.startswith(b"HTTP/1.1 "), line
    for seen in upstream.seen:
        parts = seen.target.split("?")[0].split("/")
        assert parts[1] == "api", seen.target
        assert parts[2] in {"tasks", "models"}, seen.target
        assert ".." not in parts, seen.target
        assert "x-evil" not in seen.headers


def test_an_odd_uid_arrives_as_one_quoted_part(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers(554, {"detail": "No such task.", "code": "unknown_task"})

    answer = client.get("/api/tasks/a%20b%3F%23%C3%BC%25.zip")

    assert answer.status_code == 554
    assert upstream.last.target == "/api/tasks/a%20b%3F%23%C3%BC%25%2Ezip"


@pytest.mark.parametrize(
    ("wait", "status"), [("0", 200), ("60", 200), ("60.1", 422), ("-1", 422), ("nan", 422), ("x", 422)]
)
def test_a_poll_may_wait_a_minute_and_no_longer(
    client: httpx.Client, upstream: Upstream, wait: str, status: int
) -> None:
    answer = client.get(f"/api/tasks/{UID}?wait={wait}")

    assert answer.status_code == status
    assert len(upstream.seen) == (status == 200)
    if status == 422:
        assert "wait" in answer.json()["detail"]


def test_a_refused_internal_token_is_the_platforms_fault_and_not_the_clients(
    client: httpx.Client, upstream: Upstream
) -> None:
    upstream.answers(401, {"detail": "wrong token", "code": "unauthorized"})

    answers = [client.get(f"/api/tasks/{UID}"), client.post("/api/tasks/", content=b"x")]

    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("INTERNAL_TOKEN" in answer.json()["detail"] for answer in answers)
    assert TOKEN not in json.dumps([answer.json() for answer in answers])


def test_no_uid_is_in_the_log(client: httpx.Client, process: Service, upstream: Upstream) -> None:
    uid = "secret-uid-that-nobody-may-read-in-a-log-42"
    upstream.answers(500, {"detail": "x", "code": "internal"})

    client.get(f"/api/tasks/{uid}")
    client.delete(f"/api/tasks/{uid}")

    eventually(lambda: process.log.count("/api/tasks/{uid}") >= 2)  # each line comes after its answer
    assert uid not in process.log

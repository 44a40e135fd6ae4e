"""private_api away, hanging or dying: what a client sees, and how soon."""

import asyncio
import hashlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from public_api.relay import Deadlines
from tests.integration.public_api.conftest import RelayTo
from tests.support.platform import Service
from tests.support.ports import free_port
from tests.support.upstream import Script, Upstream, gagged_server, raw_server
from tests.support.waiting import eventually

MIB = 2**20
TARGETS = [("GET", "/api/tasks/x"), ("GET", "/api/tasks/x?wait=0"), ("GET", "/api/models/"), ("POST", "/api/tasks/")]


def _assert_away(answer: httpx.Response, code: str = "unavailable") -> None:
    assert answer.status_code == 503
    assert answer.json()["code"] == code
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("method", "target"), TARGETS)
def test_private_api_being_away_is_a_503_at_once(relay_to: RelayTo, method: str, target: str) -> None:
    with relay_to(f"http://127.0.0.1:{free_port()}") as client:
        began = time.monotonic()
        answer = client.request(method, target)

    _assert_away(answer)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("method", "target"), TARGETS)
def test_private_api_hanging_is_a_503_at_the_deadline(relay_to: RelayTo, method: str, target: str) -> None:
    deadlines = Deadlines(answer=timedelta(seconds=0.3), store=timedelta(seconds=0.3))

    with gagged_server() as url, relay_to(url, deadlines) as client:
        answer = client.request(method, target)

    _assert_away(answer, "outcome_unknown" if method == "POST" else "unavailable")


def test_a_poll_that_waits_is_given_its_wait_before_the_deadline(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo
) -> None:
    def answer_late(connection: socket.socket) -> None:
        connection.recv(65536)
        threading.Event().wait(0.6)
        connection.sendall(b"HTTP/1.1 551 x\r\nContent-Length: 2\r\n\r\n{}")

    with raw_server(answer_late) as url, relay_to(url, Deadlines(answer=timedelta(seconds=0.3))) as client:
        waiting, hasty = client.get("/api/tasks/x?wait=5"), client.get("/api/tasks/x?wait=0")

    assert (waiting.status_code, hasty.status_code) == (551, 503)


def test_readiness_tells_within_its_own_deadline_that_private_api_hangs(relay_to: RelayTo) -> None:
    with gagged_server() as url, relay_to(url) as client:
        answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert "no answer within 3 s" in answer.json()["dependencies"]["private_api"]


def test_a_connection_that_private_api_closed_meanwhile_costs_no_client_an_error(relay_to: RelayTo) -> None:
    def answer_once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 551 x\r\nContent-Length: 2\r\n\r\n{}")

    with raw_server(answer_once) as url, relay_to(url) as client:
        answers = [client.get("/api/tasks/x").status_code for _ in range(10)]

    assert answers == [551] * 10


def test_private_api_dying_inside_a_small_answer_is_a_503(relay_to: RelayTo) -> None:
    def die(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")

    with raw_server(die) as url, relay_to(url) as client:
        answer = client.get("/api/tasks/x")

    _assert_away(answer)


@pytest.mark.parametrize("framing", [f"Content-Length: {64 * MIB}", "Transfer-Encoding: chunked"])
def test_private_api_dying_in_mid_download_never_looks_like_an_end(relay_to: RelayTo, framing: str) -> None:
    def die(connection: socket.socket) -> None:
        connection.recv(65536)
        body = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n" if "chunked" in framing else bytes(MIB)
        connection.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + body)

    with raw_server(die) as url, relay_to(url) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/api/tasks/x")


def test_private_api_falling_silent_in_mid_download_never_looks_like_an_end(relay_to: RelayTo) -> None:
    over = threading.Event()

    def hang(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {64 * MIB}\r\n\r\n".encode() + bytes(MIB))
        over.wait(15)

    deadlines = Deadlines(download_idle=timedelta(seconds=0.3))
    with raw_server(hang) as url, relay_to(url, deadlines) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/api/tasks/x")
        over.set()


def test_200_mib_come_down_unchanged_and_do_not_stay_in_memory(
    client: httpx.Client, process: Service, upstream: Upstream
) -> None:
    piece = bytes(range(256)) * 4096

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield piece

    upstream.script = Script(200, headers={"Content-Length": str(200 * MIB), "ETag": '"a"'}, stream=pieces)
    before = peak = process.rss
    got = hashlib.sha256()

    with client.stream("GET", "/api/tasks/x") as answer:
        for chunk in answer.iter_raw():
            got.update(chunk)
            peak = max(peak, process.rss)

    assert answer.headers["content-length"] == str(200 * MIB)
    assert got.hexdigest() == hashlib.sha256(piece * 200).hexdigest()
    assert peak - before < 32 * MIB


def _endless(upstream: Upstream) -> threading.Event:
    """A download without an end; the event is set when the relay's side of it is cut."""
    cut = threading.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
                await asyncio.sleep(0)  # uvicorn swallows what is sent after the end, without yielding
        finally:
            cut.set()

    upstream.script = Script(200, headers={"Content-Type": "application/zip"}, stream=pieces)
    return cut


def test_a_client_that_goes_away_in_mid_download_cuts_the_call_behind(client: httpx.Client, upstream: Upstream) -> None:
    cut = _endless(upstream)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as link:
        link.sendall(b"GET /api/tasks/x HTTP/1.1\r\nHost: x\r\n\r\n")
        link.recv(65536)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert eventually(cut.is_set)


def test_a_client_that_takes_nothing_any_more_is_let_go(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo
) -> None:
    cut = _endless(upstream)
    deadlines = Deadlines(download_idle=timedelta(seconds=0.3))

    with (
        relay_to(upstream_url, deadlines) as client,
        socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as link,
    ):
        link.sendall(b"GET /api/tasks/x HTTP/1.1\r\nHost: x\r\n\r\n")

        assert eventually(cut.is_set)

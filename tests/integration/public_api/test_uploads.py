"""Large bodies on their way in: streamed, bounded, and cut on both sides when one side ends."""

import hashlib
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from public_api.relay import Deadlines
from tests.integration.public_api.conftest import MAX_UPLOAD_BYTES, RelayTo
from tests.support.platform import Service
from tests.support.upstream import Script, Upstream, raw_server
from tests.support.waiting import eventually

MIB = 2**20
CHUNK = bytes(range(256)) * 4096


def _chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield CHUNK


def _head(length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /api/tasks/?model_human_readable_id=m HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()


def _connect(base_url: httpx.URL) -> socket.socket:
    return socket.create_connection((base_url.host, base_url.port or 80), timeout=20)


def test_200_mib_go_up_unchanged_and_do_not_stay_in_memory(
    client: httpx.Client, process: Service, upstream: Upstream
) -> None:
    client.post("/api/tasks/", content=_chunks(8), headers={"Content-Length": str(8 * MIB)})
    before = process.rss
    peak = [before]
    sent = hashlib.sha256()

    def watched() -> Iterator[bytes]:
        for chunk in _chunks(200):
            sent.update(chunk)
            peak[0] = max(peak[0], process.rss)
            yield chunk

    answer = client.post("/api/tasks/", content=watched(), headers={"Content-Length": str(200 * MIB)})

    assert answer.status_code == 200
    assert upstream.last.body_bytes == 200 * MIB
    assert upstream.last.body_sha256 == sent.hexdigest()
    assert max(peak[0], process.rss) - before < 32 * MIB


def test_a_declared_size_above_the_limit_is_refused_before_a_byte_is_read(
    client: httpx.Client, upstream: Upstream
) -> None:
    with _connect(client.base_url) as link:
        link.sendall(_head(MAX_UPLOAD_BYTES + 1))

        answer = b""
        while b"MAX_UPLOAD_BYTES" not in answer and (received := link.recv(65536)):
            answer += received

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"MAX_UPLOAD_BYTES" in answer
    assert upstream.seen == []


def test_a_size_at_the_limit_is_not_refused(upstream: Upstream, upstream_url: str, relay_to: RelayTo) -> None:
    with relay_to(upstream_url, max_upload_bytes=1000) as client:
        at_limit = [
            client.post("/api/tasks/", content=b"x" * 1000),
            client.post("/api/tasks/", content=iter([b"x" * 1000])),
        ]
        above = [
            client.post("/api/tasks/", content=b"x" * 1001),
            client.post("/api/tasks/", content=iter([b"x" * 1001])),
        ]

    assert [answer.status_code for answer in at_limit] == [200, 200]
    assert [answer.status_code for answer in above] == [413, 413]
    assert [answer.json()["code"] for answer in above] == ["upload_too_large"] * 2


def test_a_chunked_body_that_outgrows_the_limit_gets_its_413_and_never_counts_behind(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo
) -> None:
    with relay_to(upstream_url, max_upload_bytes=4 * MIB) as client:
        answer = client.post("/api/tasks/", content=_chunks(64))

        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
        assert not upstream.last.is_whole
        assert upstream.last.body_bytes <= 4 * MIB


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]])
def test_curl_gets_the_413_and_no_broken_pipe(
    upstream_url: str, upstream: Upstream, relay_to: RelayTo, tmp_path: Path, framing: list[str]
) -> None:
    big = tmp_path / "big.zip"
    with big.open("wb") as file:
        file.truncate(64 * MIB)

    with relay_to(upstream_url, max_upload_bytes=MIB) as client:
        command = ["curl", "-sS", "-m", "60", "-w", "%{http_code}", "-F", f"zip_file=@{big}", *framing]
        done = subprocess.run(
            [*command, f"{client.base_url}/api/tasks/"], capture_output=True, text=True, timeout=90, check=False
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("413")
    assert "upload_too_large" in done.stdout


@pytest.mark.parametrize("declared", [True, False])
def test_a_refusal_from_behind_reaches_the_client_before_its_body_was_read(
    client: httpx.Client, upstream: Upstream, declared: bool
) -> None:
    upstream.script = Script(404, b'{"detail": "No such model.", "code": "unknown_model"}', reads_body=False)
    headers = {"Content-Length": str(64 * MIB)} if declared else {}

    answer = client.post("/api/tasks/", content=_chunks(64), headers=headers)

    assert (answer.status_code, answer.json()["detail"]) == (404, "No such model.")
    upstream.answers(551)
    assert client.get("/api/tasks/x").status_code == 551


def test_a_client_that_goes_away_in_mid_upload_cuts_the_call_behind(
    client: httpx.Client, process: Service, upstream: Upstream
) -> None:
    with _connect(client.base_url) as link:
        link.sendall(_head(10 * MIB) + CHUNK)
        eventually(lambda: upstream.seen and upstream.last.body_bytes == len(CHUNK))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert eventually(lambda: _cut_behind(upstream))
    assert client.get("/api/tasks/x").status_code == 200
    assert "private_api_away" not in process.log.splitlines()[-1]


def _cut_behind(upstream: Upstream) -> bool:
    """Whether the upstream's reading of the body ended without the body's end."""
    return upstream.ended_uploads > 0 and not upstream.last.is_whole


def test_a_client_that_sends_nothing_any_more_is_let_go(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo
) -> None:
    with relay_to(upstream_url, upload_idle_seconds=0.3) as client, _connect(client.base_url) as link:
        link.sendall(_head(10 * MIB) + CHUNK)

        answer = link.makefile("rb").read()

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"0.3 s" in answer
        assert eventually(lambda: _cut_behind(upstream))


def test_a_slow_client_is_not_let_go_as_long_as_something_comes(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo
) -> None:
    pause = threading.Event()

    def slowly() -> Iterator[bytes]:
        for _ in range(8):
            pause.wait(0.2)
            yield b"x"

    with relay_to(upstream_url, upload_idle_seconds=1) as client:
        answer = client.post("/api/tasks/", content=slowly())

    assert (answer.status_code, upstream.last.body_bytes) == (200, 8)


def test_private_api_dying_in_mid_upload_is_a_503(relay_to: RelayTo) -> None:
    def take_a_little_and_die(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with raw_server(take_a_little_and_die) as url, relay_to(url) as client:
        answer = client.post("/api/tasks/", content=_chunks(64), headers={"Content-Length": str(64 * MIB)})

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "retry-after" in answer.headers


def test_private_api_taking_no_more_in_mid_upload_is_a_503_and_not_the_clients_fault(relay_to: RelayTo) -> None:
    over = threading.Event()

    def take_a_little_and_hang(connection: socket.socket) -> None:
        connection.recv(1000)
        over.wait(15)

    with raw_server(take_a_little_and_hang) as url, relay_to(url, upload_idle_seconds=0.5) as client:
        answer = client.post("/api/tasks/", content=_chunks(64), headers={"Content-Length": str(64 * MIB)})
        over.set()

    assert answer.status_code == 503


def test_private_api_that_never_confirms_an_upload_is_a_503_at_the_deadline(relay_to: RelayTo) -> None:
    over = threading.Event()

    def take_all_and_hang(connection: socket.socket) -> None:
        connection.recv(65536)
        over.wait(15)

    with raw_server(take_all_and_hang) as url, relay_to(url, Deadlines(store=timedelta(seconds=0.3))) as client:
        answer = client.post("/api/tasks/", content=b"small")
        over.set()

    assert answer.status_code == 503

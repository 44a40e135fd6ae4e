"""Requests and answers on their way through Traefik: unchanged, as they come, sent once, and told about in the log with care."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.http_server import serving
from tests.support.traefik import REPOSITORY, Traefik, TraefikMaker, flag_value, shipped_flags
from tests.support.upstream import Script, Upstream, raw_server
from tests.support.waiting import eventually

UID = "an-uid-that-nobody-else-may-know-0123456789"
SLOW_LINE_BITS_PER_SECOND = 2_000_000
SOON = 30.0


@pytest.fixture(scope="module")
def shared_upstream() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def backend(shared_upstream: Upstream) -> Iterator[str]:
    with serving(shared_upstream) as url:
        yield url


@pytest.fixture(scope="module")
def traefik(backend: str, shared_certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    with Traefik(tmp_path_factory.mktemp("traefik"), shared_certificates, backend) as started:
        started.start()
        yield started


@pytest.fixture
def upstream(shared_upstream: Upstream, traefik: Traefik) -> Upstream:
    """The backend, with nothing seen yet and the plain script."""
    return fresh(shared_upstream)


def fresh(upstream: Upstream) -> Upstream:
    upstream.seen.clear()
    upstream.ended_uploads = 0
    upstream.script = Script()
    return upstream


@contextmanager
def upload(traefik: Traefik, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A post whose body is what the test writes to stdin; curl's exit status says whether an answer came."""
    command = ["curl", "--silent", "--cacert", str(traefik.ca), "--max-time", "60", "--output", "/dev/null"]
    with subprocess.Popen(
        [*command, *options, "--request", "POST", "--upload-file", "-", f"{traefik.url}/api/tasks/"],
        stdin=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


def finish(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(30)


@pytest.mark.parametrize("status", [551, 552, 553, 554, 500, 503, 404])
def test_a_status_and_its_body_come_through_unchanged_and_are_asked_for_once(
    status: int, traefik: Traefik, upstream: Upstream
) -> None:
    upstream.answers(status, {"detail": "a sentence", "code": "a_word"})

    with traefik.client() as client:
        answer = client.get(f"/api/tasks/{UID}")

    assert answer.status_code == status
    assert answer.content == upstream.script.body
    assert answer.headers["content-length"] == str(len(upstream.script.body))
    assert [seen.target for seen in upstream.seen] == [f"/api/tasks/{UID}"]


def test_a_part_of_a_download_keeps_its_headers(traefik: Traefik, upstream: Upstream) -> None:
    upstream.answers_bytes(206, b"cd", Content_Range="bytes 2-3/10", ETag='"sha"', Accept_Ranges="bytes")

    with traefik.client() as client:
        answer = client.get(f"/api/tasks/{UID}", headers={"Range": "bytes=2-3", "If-Range": '"sha"'})

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (206, b"cd", "2")
    assert (answer.headers["etag"], answer.headers["content-range"]) == ('"sha"', "bytes 2-3/10")
    assert (upstream.last.headers["range"], upstream.last.headers["if-range"]) == ("bytes=2-3", '"sha"')


@pytest.mark.parametrize(
    "target", ["/api/models/a%20b%3Fc%23d%25e%3Bf%C3%A9", "/api/models/x%2Fy%5Cz", "/api/tasks/?x=1&y=%26"]
)
def test_a_path_keeps_its_percent_signs(target: str, traefik: Traefik, upstream: Upstream) -> None:
    with traefik.client() as client:
        client.get(target)

    assert upstream.last.target == target


@pytest.mark.parametrize(
    "target", ["/internal/platform", "/%69nternal/platform", "//internal/x", "/docs/../internal/x"]
)
def test_an_internal_path_does_not_reach_the_backend(target: str, traefik: Traefik, upstream: Upstream) -> None:
    done = subprocess.run(
        [
            "curl",
            "--silent",
            "--path-as-is",
            "--cacert",
            str(traefik.ca),
            "--write-out",
            "%{http_code}",
            traefik.url + target,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout.endswith("404")
    assert upstream.seen == []


def test_what_a_client_says_about_its_own_address_is_not_believed(traefik: Traefik, upstream: Upstream) -> None:
    with traefik.client() as client:
        client.get("/", headers={"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7", "X-Forwarded-Proto": "http"})

    headers = upstream.last.headers
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "https")
    assert "192.0.2.7" not in headers.values()


def test_headers_of_more_than_32_kib_are_refused(traefik: Traefik, upstream: Upstream) -> None:
    with traefik.client() as client:
        answer = client.get("/", headers={"X-Large": "x" * 40_000})

    assert answer.status_code == 431
    assert upstream.seen == []


def test_plain_http_moves_to_https_with_path_and_query(traefik: Traefik, upstream: Upstream) -> None:
    answer = httpx.get(f"http://127.0.0.1:{traefik.http_port}/api/tasks/{UID}?wait=1&x=%20")

    assert answer.status_code in (301, 308)
    assert answer.headers["location"] == f"{traefik.url}/api/tasks/{UID}?wait=1&x=%20"
    assert upstream.seen == []


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_the_backend_sees_a_body_before_the_client_has_sent_it_all(
    version: str, traefik: Traefik, upstream: Upstream
) -> None:
    with upload(traefik, version) as process:
        write(process, b"first")
        eventually(lambda: upstream.seen and upstream.seen[0].body_bytes == 5)

        write(process, b"last")
        assert finish(process) == 0

    assert upstream.seen[0].body == b"firstlast"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_upload_that_outlasts_a_short_timeout_is_cut_there_and_whole_with_the_shipped_one(
    version: str, traefik: Traefik, make_traefik: TraefikMaker, upstream: Upstream, backend: str
) -> None:
    short = make_traefik(backend, TRANSFER_TIMEOUT="2s")
    fresh(upstream)

    with upload(traefik, version) as patient:
        write(patient, b"first")
        eventually(lambda: len(upstream.seen) == 1)
        with upload(short, version) as cut:
            write(cut, b"first")
            eventually(lambda: upstream.ended_uploads == 1)
        write(patient, b"last")

        assert finish(patient) == 0

    assert [(seen.is_whole, seen.body) for seen in upstream.seen] == [(True, b"firstlast"), (False, b"first")]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_answer_that_outlasts_a_short_timeout_is_cut_there_and_whole_with_the_shipped_one(
    version: str, traefik: Traefik, make_traefik: TraefikMaker, upstream: Upstream, backend: str
) -> None:
    short = make_traefik(backend, TRANSFER_TIMEOUT="2s")
    release = threading.Event()
    upstream.script = Script(stream=lambda: steady_bytes(release))

    def download(which: Traefik) -> int:
        options = ["--silent", version, "--cacert", str(which.ca), "--output", "/dev/null", "--max-time", "60"]
        return subprocess.run(["curl", *options, f"{which.url}/api/tasks/{UID}"], check=False).returncode

    with ThreadPoolExecutor() as pool:
        patient = pool.submit(download, traefik)
        cut = pool.submit(download, short)
        assert cut.result(30) != 0
        assert not patient.done()
        release.set()

        assert patient.result(30) == 0


async def held_bytes(release: threading.Event) -> AsyncIterator[bytes]:
    yield b"first"
    await asyncio.to_thread(release.wait, 30)
    yield b"last"


async def steady_bytes(until: threading.Event) -> AsyncIterator[bytes]:
    while not until.is_set():
        yield b"."
        await asyncio.sleep(0.02)


def test_the_shipped_timeouts_let_20_gb_pass_a_slow_line_and_hold_nothing_for_ever() -> None:
    flags = shipped_flags()

    for direction in ("readtimeout", "writetimeout"):
        hours = flag_value(flags, f"entrypoints.websecure.transport.respondingtimeouts.{direction}")
        assert hours.endswith("h")
        assert int(hours[:-1]) * 3600 * SLOW_LINE_BITS_PER_SECOND / 8 >= 20e9


def test_a_swarm_runs_traefik_with_the_same_flags() -> None:
    assert shipped_flags(file=REPOSITORY / "docker-stack.yaml") == shipped_flags()


def test_an_answer_comes_as_the_backend_gives_it(traefik: Traefik, upstream: Upstream) -> None:
    release = threading.Event()
    upstream.script = Script(stream=lambda: held_bytes(release))

    with traefik.client() as client, client.stream("GET", f"/api/tasks/{UID}") as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"first"
        release.set()

        assert b"".join(chunks) == b"last"


def test_the_backend_learns_that_the_client_left_in_mid_upload(traefik: Traefik, upstream: Upstream) -> None:
    with upload(traefik) as process:
        write(process, b"first")
        eventually(lambda: upstream.seen)

        process.kill()
        eventually(lambda: upstream.ended_uploads == 1)

    assert not upstream.seen[0].is_whole


def test_the_backend_learns_that_the_client_left_while_it_waited(make_traefik: TraefikMaker) -> None:
    asked, left = threading.Event(), threading.Event()

    def hold(connection: socket.socket) -> None:
        if b"/health/live" in connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        asked.set()
        if connection.recv(1) == b"":
            left.set()

    with raw_server(hold) as backend:
        traefik = make_traefik(backend)
        poll = [
            "curl",
            "--silent",
            "--cacert",
            str(traefik.ca),
            "--max-time",
            "60",
            f"{traefik.url}/api/tasks/{UID}?wait=60",
        ]
        with subprocess.Popen(poll, stdout=subprocess.DEVNULL) as client:
            try:
                assert asked.wait(SOON)
            finally:
                client.kill()

        assert left.wait(SOON)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_whose_backend_goes_away_after_it_is_not_sent_again(method: str, make_traefik: TraefikMaker) -> None:
    requests: list[bytes] = []

    def answer_once_then_break(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            requests.append(request)
            if b"/health/live" not in request:
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with raw_server(answer_once_then_break) as backend:
        traefik = make_traefik(backend)
        requests.clear()
        with traefik.client() as client:
            answer = client.request(method, "/api/tasks/", content=b"body" if method == "POST" else None)

    assert answer.status_code == 502
    assert len(requests) == 1


def test_no_line_of_the_log_holds_a_uid_a_query_or_a_header(traefik: Traefik, upstream: Upstream) -> None:
    before = len(traefik.access_lines())
    secret = {"Authorization": "Bearer header-secret", "Referer": f"https://x/{UID}", "User-Agent": "agent-secret"}
    with traefik.client() as client:
        client.get(f"/api/tasks/{UID}?token=query-secret", headers={**secret, "Cookie": "c=header-secret"})
        client.get(f"/internal/{UID}", headers=secret)
        client.get("/api/models/?x=query-secret")
        client.get(f"/{UID}")
    httpx.get(f"http://127.0.0.1:{traefik.http_port}/api/tasks/{UID}?token=query-secret", headers=secret)

    eventually(lambda: len(traefik.access_lines()) == before + 4)
    assert [word for word in (UID, "query-secret", "header-secret", "agent-secret") if word in traefik.log] == []
    lines = traefik.access_lines()[before:]
    assert [line.get("RouterName") for line in lines] == ["tasks@file", None, "models@file", "other@file"]
    assert [line["ClientHost"] for line in lines] == ["127.0.0.1"] * 4

"""Traefik before the real public_api and private_api: long polls, pages, restarts, and what must not be there."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from inference_client import InferenceClient
from tests.support.hostile_models import zip_of
from tests.support.platform import Platform
from tests.support.traefik import Traefik, shipped_flags
from tests.support.waiting import eventually

AT_ONCE = 10.0
LONG_POLL_SECONDS = 20


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform")) as started:
        started.start()
        yield started


@pytest.fixture(scope="module")
def traefik(
    platform: Platform, shared_certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Traefik]:
    with Traefik(tmp_path_factory.mktemp("traefik"), shared_certificates, platform.url) as started:
        started.start()
        yield started


@pytest.fixture(scope="module")
def uid(traefik: Traefik, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task that nobody runs."""
    with InferenceClient(traefik.url, ca=traefik.ca) as client:
        client.add_model("any", "any:1")
        return client.submit("any", zip_of(tmp_path_factory.mktemp("input") / "in.zip", {"file": "content"}))


@pytest.fixture(scope="module")
def long_poll(traefik: Traefik, uid: str) -> Iterator[Future[tuple[httpx.Response, float]]]:
    """A poll that the server holds back while the other tests run."""

    def poll() -> tuple[httpx.Response, float]:
        began = time.monotonic()
        with traefik.client(timeout=LONG_POLL_SECONDS + 20) as client:
            answer = client.get(f"/api/tasks/{uid}", params={"wait": str(LONG_POLL_SECONDS)})
        return answer, time.monotonic() - began

    with ThreadPoolExecutor() as pool:
        yield pool.submit(poll)


@pytest.mark.usefixtures("long_poll")
def test_every_answer_tells_browsers_to_stay_with_https(traefik: Traefik, uid: str) -> None:
    with traefik.client() as client:
        answers = [client.get("/"), client.get(f"/api/tasks/{uid}"), client.get("/no-such-page")]

    for answer in answers:
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


def test_the_page_of_the_api_has_all_that_it_needs(traefik: Traefik) -> None:
    with traefik.client() as client:
        page = client.get("/docs")
        assets = [part.split('"')[0] for part in page.text.split('="') if part.startswith("/static-offline-docs")]
        answers = [client.get(path) for path in [*assets, "/openapi.json"]]

    assert page.is_success
    assert len(assets) >= 2
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert "content-security-policy" not in page.headers


@pytest.mark.parametrize("path", ["/ping", "/dashboard/", "/api/rawdata", "/api/overview", "/debug/vars", "/metrics"])
def test_nothing_of_traefik_itself_is_on_the_public_ports(path: str, traefik: Traefik) -> None:
    with traefik.client() as client:
        assert client.get(path).status_code == 404
    assert httpx.get(f"http://127.0.0.1:{traefik.http_port}{path}").headers["location"] == traefik.url + path


def test_ping_answers_on_a_port_of_its_own_and_nothing_else_does(traefik: Traefik) -> None:
    ping = f"http://127.0.0.1:{traefik.ping_port}"

    assert httpx.get(f"{ping}/ping").text == "OK"
    assert [httpx.get(ping + path).status_code for path in ("/", "/api/models/", "/dashboard/")] == [404] * 3


def test_the_shipped_flags_open_no_dashboard_and_tell_nobody() -> None:
    flags = shipped_flags()

    assert not [flag for flag in flags if flag.startswith(("--api", "--providers.docker", "--providers.swarm"))]
    assert "--global.checknewversion=false" in flags
    assert "--global.sendanonymoususage=false" in flags


def test_a_backend_that_is_away_gives_502_at_once_and_works_again_when_it_is_back(
    platform: Platform, traefik: Traefik, uid: str, long_poll: Future[tuple[httpx.Response, float]]
) -> None:
    long_poll.result(60)
    with traefik.client() as client:
        platform.public.kill()
        began = time.monotonic()
        away = client.get(f"/api/tasks/{uid}")
        took = time.monotonic() - began
        platform.public.restart()

        assert away.status_code in (502, 503, 504)
        assert took < AT_ONCE
        assert eventually(lambda: client.get(f"/api/tasks/{uid}").status_code == 551, 60)


def test_a_backend_that_dies_in_mid_upload_ends_the_upload(platform: Platform, traefik: Traefik) -> None:
    with half_sent_upload(traefik) as connection:
        eventually(lambda: list((platform.data / "tmp").iterdir()))
        platform.public.kill()

        connection.settimeout(30)
        connection.sendall(b"x" * 1000)  # Traefik notices with the next bytes of the body
        answer = connection.recv(65536)
    platform.public.restart()
    platform.wait_ready()

    assert answer.split(b" ")[1] in (b"502", b"503", b"504")


@contextmanager
def half_sent_upload(traefik: Traefik) -> Iterator[socket.socket]:
    """A post of a megabyte that stops after some of it."""
    head = (
        "POST /api/tasks/?model_human_readable_id=any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="zip_file"; filename="a.zip"\r\n\r\n'
    )
    with (
        socket.create_connection(("127.0.0.1", traefik.https_port), 10) as plain,
        traefik.trust().wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(head.encode() + b"x" * 300_000)
        yield connection


def test_a_poll_that_waits_is_answered_by_the_server_and_not_cut(
    long_poll: Future[tuple[httpx.Response, float]],
) -> None:
    answer, seconds = long_poll.result(60)

    assert answer.status_code == 551
    assert seconds >= LONG_POLL_SECONDS - 1

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

RELEASE_SECONDS = 10
STATUS_OF = {"/live": 200, "/made": 201, "/away": 503, "/gone": 404, "/moved": 302}


@pytest.fixture
def address() -> Iterator[str]:
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/drops":
                while not released.wait(0.2):
                    self.connection.send(b"HTTP/1.1 200 OK"[:1])
            self.send_response(STATUS_OF.get(self.path, 200))
            self.send_header("Location", "/live")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as where:
        yield where
        released.set()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def checked(url: str, **environment: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "service_kit.healthcheck", url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=RELEASE_SECONDS,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("path", ["/live", "/made"])
def test_what_answers_well_is_healthy(address: str, path: str) -> None:
    assert checked(address + path) == (0, "")


@pytest.mark.parametrize("path", ["/away", "/gone", "/moved"])
def test_every_other_status_is_unhealthy_and_named(address: str, path: str) -> None:
    status, said = checked(address + path)

    assert status == 1
    assert said == f"{address}{path}: answered {STATUS_OF[path]}\n"


def test_one_that_answers_in_drops_has_three_seconds_altogether(address: str) -> None:
    status, said = checked(address + "/drops")

    assert status == 1
    assert said == f"{address}/drops: no answer within 3 s\n"


def test_nobody_there_is_unhealthy_in_one_line() -> None:
    status, said = checked("http://127.0.0.1:1/health/live")

    assert status == 1
    assert "refused" in said
    assert said.count("\n") == 1


def test_a_proxy_of_the_environment_is_not_asked(address: str) -> None:
    assert checked(address + "/live", http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1") == (0, "")


@pytest.mark.parametrize("url", ["https://localhost/", "localhost:8000", "http://localhost:port/", ""])
def test_an_address_that_cannot_be_asked_is_said_to_be_one(url: str) -> None:
    status, said = checked(url)

    assert status == 1
    assert said.startswith(f"{url}: ")
    assert said.count("\n") == 1

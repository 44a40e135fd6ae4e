"""What one client may ask of Traefik at a time, and what it may not ask at all."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from contracts.task_state import POLL_FAILED
from inference_client import InferenceClient
from inference_client.errors import ClientError, RequestRefused, TaskCancelled
from tests.support.hostile_models import zip_of
from tests.support.http_server import serving
from tests.support.platform import PlatformMaker
from tests.support.traefik import Traefik, TraefikMaker
from tests.support.upstream import Script, Upstream
from tests.support.waiting import eventually

OTHER_CLIENT = "127.0.0.2"
_NO_CHANCE = 3
"""One refusal may be of two requests that met by chance."""


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def backend(upstream: Upstream) -> Iterator[str]:
    with serving(upstream) as url:
        yield url


def test_past_the_rate_one_client_gets_429_with_retry_after_and_another_is_served(
    make_traefik: TraefikMaker, backend: str
) -> None:
    traefik = make_traefik(backend, RATE_LIMIT_AVERAGE="1", RATE_LIMIT_BURST="3")

    with traefik.client() as client, traefik.client(OTHER_CLIENT) as other:
        refused = eventually(lambda: refusal_of(client))
        others = other.get("/")

    assert int(refused.headers["retry-after"]) >= 1
    assert others.status_code == 200


def refusal_of(client: httpx.Client) -> httpx.Response | None:
    """The answer to one more request, where it is 429."""
    answer = client.get("/")
    return answer if answer.status_code == 429 else None


def test_past_the_requests_in_flight_one_client_gets_429_while_others_and_other_routes_are_served(
    make_traefik: TraefikMaker, backend: str, upstream: Upstream
) -> None:
    traefik = make_traefik(backend, IN_FLIGHT_LIMIT="2")
    release = threading.Event()
    upstream.seen.clear()
    upstream.script = Script(stream=lambda: held(release))

    with ThreadPoolExecutor() as pool, traefik.client() as client, traefik.client(OTHER_CLIENT) as other:
        waiting = [pool.submit(client.get, "/api/tasks/x") for _ in range(2)]
        eventually(lambda: len(upstream.seen) == 2)
        refused = client.get("/api/tasks/y")
        upstream.script = Script()
        served = [other.get("/api/tasks/y").status_code, client.get("/api/models/").status_code]
        release.set()
        statuses = [answer.result(30).status_code for answer in waiting]

    assert refused.status_code == 429
    assert served == [200, 200]
    assert statuses == [200, 200]


async def held(release: threading.Event) -> AsyncIterator[bytes]:
    await asyncio.to_thread(release.wait, 30)
    yield b"done"


@pytest.mark.parametrize(
    "limits",
    [{"RATE_LIMIT_AVERAGE": "1", "RATE_LIMIT_BURST": "3"}, {"IN_FLIGHT_LIMIT": "1"}],
    ids=["rate", "in flight"],
)
def test_a_client_that_waits_for_its_task_survives_429(
    limits: dict[str, str], make_traefik: TraefikMaker, make_platform: PlatformMaker, tmp_path: Path
) -> None:
    platform = make_platform()
    traefik = make_traefik(platform.url, **limits)
    troubles: list[ClientError] = []
    with platform.client() as direct:
        direct.add_model("any", "any:1")
        uid = direct.submit("any", zip_of(tmp_path / "in.zip", {"file": "content"}))

        with (
            ThreadPoolExecutor() as pool,
            occupied(traefik, uid),
            InferenceClient(traefik.url, ca=traefik.ca) as client,
        ):
            waiting = pool.submit(client.wait, uid, timedelta(seconds=90), lambda _: None, troubles.append)
            eventually(lambda: troubles)
            direct.cancel(uid)

            with pytest.raises(TaskCancelled):
                waiting.result(100)

    assert all(isinstance(error, RequestRefused) and error.status == 429 for error in troubles)


class occupied:  # noqa: N801 - reads as a context
    """Uses up this client's limits for as long as the task lives: polls that wait on the server, and a stream of others."""

    def __init__(self, traefik: Traefik, uid: str) -> None:
        self._client = traefik.client(timeout=90)
        self._uid = uid
        self._is_full = threading.Event()
        self._given_up = threading.Event()
        self._pool = ThreadPoolExecutor()

    def __enter__(self) -> None:
        self._asking = [self._pool.submit(self._ask_without_end, wait) for wait in ("60", "0")]
        assert self._is_full.wait(60)

    def _ask_without_end(self, wait: str) -> None:
        refused_in_a_row = 0
        while not self._given_up.wait(0.02):
            status = self._client.get(f"/api/tasks/{self._uid}", params={"wait": wait}).status_code
            if status == POLL_FAILED:
                return
            refused_in_a_row = refused_in_a_row + 1 if status == 429 else 0
            if refused_in_a_row == _NO_CHANCE:
                self._is_full.set()

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        for asking in self._asking:
            asking.result(90)
        self._pool.shutdown()
        self._client.close()

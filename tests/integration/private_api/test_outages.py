"""The database away, the broker away, and a stop while others wait."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from contracts import routes
from tests.support.platform import Service
from tests.support.ports import free_port
from tests.support.postgres import PostgresCluster
from tests.support.private_api import TOKEN, MakeApi, running, settings
from tests.support.waiting import eventually


def test_with_the_database_away_requests_are_503_and_no_attempt_is_lost(
    postgres_cluster: PostgresCluster, postgres_url: str, tmp_path: Path
) -> None:
    with running(settings(postgres_url, tmp_path / "data", lease_seconds=1.5)) as api:
        uid = api.new_task()
        api.claim(uid)
        postgres_cluster.stop()
        try:
            answers = [api.poll(uid), api.heartbeat(uid), api.http.get(routes.MODELS), api.claim(uid, "c2")]
            ready = api.http.get(routes.HEALTH_READY)
            began = time.monotonic()
            eventually(lambda: time.monotonic() - began > 2)  # longer than the lease
        finally:
            postgres_cluster.start()

        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["retry-after"] and answer.json()["detail"] for answer in answers)
        assert (ready.status_code, ready.json()["dependencies"]["database"] != "ok") == (503, True)
        eventually(lambda: api.http.get(routes.HEALTH_READY).is_success)
        assert api.heartbeat(uid).json()["cancel"] is False
        assert api.status(uid)["attempt"] == 1


def test_a_start_waits_for_a_database_that_is_not_there_yet(
    postgres_cluster: PostgresCluster, postgres_url: str, tmp_path: Path
) -> None:
    postgres_cluster.stop()
    later = threading.Timer(1.0, postgres_cluster.start)
    later.start()

    with running(settings(postgres_url, tmp_path / "data")) as api:
        later.join()
        assert api.http.get(routes.HEALTH_READY).is_success


def test_without_its_broker_everything_but_the_message_works(make_sqlite_api: MakeApi) -> None:
    api = make_sqlite_api(rabbitmq_url=f"amqp://guest:guest@127.0.0.1:{free_port()}/")
    presence = {"host": "h", "has_gpu": False, "runner": "docker"}
    uid = api.new_task()
    api.http.put(routes.CONSUMER.format(consumer="c1"), json=presence).raise_for_status()

    eventually(lambda: "127.0.0.1" in str(api.http.get(routes.HEALTH_READY).json()["dependencies"]["broker"]))
    assert api.http.get(routes.HEALTH_READY).is_success
    assert "broker is away" in api.status(uid)["waiting_for"]
    assert api.claim(uid).status_code == 200


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/platform.db",
        "DATA_DIR": str(tmp_path / "data"),
        "INTERNAL_TOKEN": TOKEN,
        "LOG_FORMAT": "json",
        "PORT": "0",
    }
    started = Service("private_api", "private_api", environment, tmp_path / "log")
    yield started
    started.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_long_polls_answer_and_does_not_wait_for_them(service: Service, number: signal.Signals) -> None:
    lines = eventually(lambda: [line for line in service.log.splitlines() if "private_api_starts" in line], 30)
    host, port = json.loads(lines[0])["address"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(httpx.Client(base_url=f"http://{host}:{port}", headers=headers, timeout=60)) as client:
        client.get(routes.PLATFORM).raise_for_status()
        answers: list[int] = []
        query: dict[str, str | int] = {"consumer": "c", "has_gpu": "false", "wait": 50}
        sent = threading.Event()

        def ask() -> None:
            trace = {"trace": lambda step, _: sent.set() if step == "http11.send_request_body.complete" else None}
            answers.append(client.get(routes.QUEUE_NEXT, params=query, extensions=trace).status_code)

        waiting = threading.Thread(target=ask)
        waiting.start()
        assert sent.wait(60)
        waiting.join(0.5)
        began = time.monotonic()

        service.signal(number)
        waiting.join(60)
        service.process.wait(60)

    assert answers == [204]
    assert time.monotonic() - began < 40

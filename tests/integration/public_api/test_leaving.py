"""How public_api leaves: a rolling update stops one replica after the other, under load, and nobody should notice."""

import http.client
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from contracts import routes
from tests.support.platform import Service
from tests.support.ports import free_port
from tests.support.upstream import Script, Upstream
from tests.support.waiting import eventually

TOKEN = "a-token-of-the-services"
LEAVE_SECONDS = 3.0
PROXY_IDLE_SECONDS = LEAVE_SECONDS / 2
"""As in the deployment: a proxy drops an idle connection in half the time that a replica takes to leave."""
CLIENTS = 12
ANSWER_SECONDS = 20.0


class Replica(Service):
    """One public_api process on a port of its own."""

    def __init__(self, upstream_url: str, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = {"PRIVATE_API_URL": upstream_url, "INTERNAL_TOKEN": TOKEN, "PORT": str(self.port), "LOG_FORMAT": "json"}
        super().__init__("public_api", "public_api", {**given, **environment}, folder / f"{self.port}.log")

    def ready(self) -> tuple[int, str]:
        """Status and word of the readiness route; 0 where nobody answers."""
        try:
            answer = httpx.get(self.url + routes.HEALTH_READY, trust_env=False)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.json()["status"]


Start = Callable[..., Replica]


@pytest.fixture
def start(upstream: Upstream, upstream_url: str, tmp_path: Path) -> Iterator[Start]:
    replicas: list[Replica] = []

    def start_one(**environment: str) -> Replica:
        replica = Replica(upstream_url, tmp_path, **environment)
        replicas.append(replica)
        eventually(lambda: replica.ready()[0] == 200, within=60)
        return replica

    yield start_one
    for replica in replicas:
        if replica.process.poll() is None:
            replica.kill()


@dataclass
class Proxy:
    """Keep-alive connections as a reverse proxy has them: reused while they were idle for a short time only, and never
    tried again on another."""

    resolve: Callable[[], int]
    """The port to connect to; asked for each new connection."""
    answered: dict[int, int] = field(default_factory=dict)
    """Requests answered, by port."""
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, over: threading.Event, seed: int) -> None:
        """One connection at a time; some pauses are longer than an idle connection lives."""
        chance = random.Random(seed)
        connection, idle_since = None, 0.0
        while not over.wait(chance.choice((0.0, 0.01, 0.1, PROXY_IDLE_SECONDS * 0.9, PROXY_IDLE_SECONDS * 1.1))):
            if connection is not None and time.monotonic() - idle_since > PROXY_IDLE_SECONDS:
                connection.close()
                connection = None
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.resolve(), timeout=ANSWER_SECONDS)
            if not self._ask(connection):
                connection = None
            idle_since = time.monotonic()
        if connection is not None:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        """One request; whether its connection may be used again."""
        try:
            connection.request("POST", "/api/tasks/?model_human_readable_id=m", body=b"x" * 2000)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            with self._lock:
                self.failures.append(f"port {connection.port}: {type(error).__name__}: {error}")
            connection.close()
            return False
        with self._lock:
            self.answered[connection.port] = self.answered.get(connection.port, 0) + 1
            if answer.status != 200:
                self.failures.append(f"port {connection.port}: {answer.status}")
        return not answer.will_close


@contextmanager
def under_load(proxy: Proxy) -> Iterator[None]:
    over = threading.Event()
    threads = [threading.Thread(target=proxy.run, args=(over, seed)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(ANSWER_SECONDS)


def test_a_replica_is_replaced_under_load_without_one_failed_request(start: Start) -> None:
    old, new = start(LEAVE_SECONDS=str(LEAVE_SECONDS)), start(LEAVE_SECONDS=str(LEAVE_SECONDS))
    moved = threading.Event()
    proxy = Proxy(lambda: new.port if moved.is_set() else old.port)

    with under_load(proxy):
        eventually(lambda: proxy.answered.get(old.port, 0) > 100)
        old.signal(signal.SIGTERM)
        eventually(lambda: old.ready()[1] == "leaving")  # from here on a proxy that checks knows
        before = proxy.answered[old.port]
        eventually(lambda: proxy.answered[old.port] > before)
        moved.set()
        old.process.wait(ANSWER_SECONDS)
        eventually(lambda: proxy.answered.get(new.port, 0) > 100)

    assert proxy.failures == []
    assert old.process.returncode == -signal.SIGTERM


def test_who_leaves_still_accepts_and_ends_each_connection_with_its_answer(start: Start) -> None:
    replica = start(LEAVE_SECONDS="60")
    with httpx.Client(base_url=replica.url, trust_env=False) as kept:
        before = kept.get(routes.HEALTH_LIVE)
        replica.signal(signal.SIGTERM)
        eventually(lambda: replica.ready() == (503, "leaving"))
        kept_open, fresh = kept.get(routes.HEALTH_LIVE), httpx.get(replica.url + routes.MODELS, trust_env=False)

    assert "Connection" not in before.headers
    assert [answer.status_code for answer in (kept_open, fresh)] == [200, 200]
    assert [answer.headers["Connection"] for answer in (kept_open, fresh)] == ["close", "close"]


def test_without_a_time_to_leave_the_listener_closes_at_once(start: Start) -> None:
    replica = start()

    replica.signal(signal.SIGTERM)

    assert replica.process.wait(ANSWER_SECONDS) == -signal.SIGTERM


def test_an_upload_in_flight_ends_within_the_time_to_drain_while_newcomers_are_refused(
    start: Start, upstream: Upstream
) -> None:
    replica = start(TRANSFER_DRAIN_SECONDS="60")
    with closing(http.client.HTTPConnection("127.0.0.1", replica.port, timeout=ANSWER_SECONDS)) as upload:
        upload.putrequest("POST", "/api/tasks/?model_human_readable_id=m")
        upload.putheader("Content-Length", "2000000")
        upload.endheaders(b"x" * 1_000_000)
        eventually(lambda: upstream.seen and upstream.last.body_bytes > 0)
        replica.signal(signal.SIGTERM)
        eventually(lambda: replica.ready() == (0, ""))

        upload.send(b"x" * 1_000_000)
        answer = upload.getresponse()

        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        assert answer.read()
    assert upstream.last.body_bytes == 2_000_000
    assert replica.process.wait(ANSWER_SECONDS) == -signal.SIGTERM


def test_an_upload_that_outlasts_the_time_to_drain_is_cut(start: Start, upstream: Upstream) -> None:
    replica = start(TRANSFER_DRAIN_SECONDS="1")
    with closing(http.client.HTTPConnection("127.0.0.1", replica.port, timeout=ANSWER_SECONDS)) as upload:
        upload.putrequest("POST", "/api/tasks/?model_human_readable_id=m")
        upload.putheader("Content-Length", "2000000")
        upload.endheaders(b"x" * 1_000_000)
        eventually(lambda: upstream.seen and upstream.last.body_bytes > 0)

        replica.signal(signal.SIGTERM)

        assert replica.process.wait(ANSWER_SECONDS) == -signal.SIGTERM
    eventually(lambda: upstream.ended_uploads)
    assert not upstream.last.is_whole


def test_a_waiting_poll_is_answered_as_things_stand_when_the_draining_begins(start: Start, upstream: Upstream) -> None:
    replica = start()
    upstream.script = Script(551, b'{"detail": "pending"}', holds_waiting=True)
    answers: list[httpx.Response] = []
    poll = threading.Thread(
        target=lambda: answers.append(
            httpx.get(replica.url + routes.TASK.format(uid="u"), params={"wait": 60}, timeout=30, trust_env=False)
        )
    )
    poll.start()
    eventually(lambda: any("wait=60" in seen.target for seen in upstream.seen))

    replica.signal(signal.SIGTERM)
    poll.join(ANSWER_SECONDS)

    assert [answer.status_code for answer in answers] == [551]
    assert "wait" not in upstream.last.target
    assert replica.process.wait(ANSWER_SECONDS) == -signal.SIGTERM


def test_a_second_signal_ends_the_leaving_and_a_third_the_draining(start: Start, upstream: Upstream) -> None:
    replica = start(LEAVE_SECONDS="60", TRANSFER_DRAIN_SECONDS="60")
    with closing(socket.create_connection(("127.0.0.1", replica.port), ANSWER_SECONDS)) as upload:
        upload.sendall(b"POST /api/tasks/?model_human_readable_id=m HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n12")
        eventually(lambda: upstream.seen and upstream.last.body_bytes > 0)
        replica.signal(signal.SIGTERM)
        eventually(lambda: replica.ready() == (503, "leaving"))

        replica.signal(signal.SIGTERM)
        eventually(lambda: replica.ready() == (0, ""))
        still_there = replica.process.poll()
        replica.signal(signal.SIGTERM)

        assert still_there is None
        assert replica.process.wait(ANSWER_SECONDS) == -signal.SIGTERM

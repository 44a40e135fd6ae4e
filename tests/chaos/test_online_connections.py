"""Cables are cut and gagged between a worker and its gateway, and clients hang up."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.online import OnlinePlatform
from tests.support.online_load import MadeCall, OnlineLoad
from tests.support.tcp_proxy import TcpProxy
from tests.support.told_endpoints import WHO
from tests.support.waiting import eventually

SILENCE = 1.5
DEADLINE = 5.0
GRACE = 2.0


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[OnlinePlatform]:
    """Its workers are those of another host."""
    entry = {"HOST": "192.0.2.1", "DEADLINE_SECONDS": DEADLINE}
    settings = {"waits_until_ready": False, "worker_port": 0, "silence_seconds": SILENCE, "vector_endpoint": "who"}
    platform = OnlinePlatform(tmp_path, {"who": entry}, **settings)
    platform.write_module("who", WHO)
    with platform:
        yield platform


@contextmanager
def far_worker(platform: OnlinePlatform) -> Iterator[tuple[TcpProxy, int]]:
    """A worker whose cable the test has in its hands, and its pid."""
    with TcpProxy(("127.0.0.1", platform.worker_port)) as proxy:
        worker = platform.add_worker("who", f"tcp://127.0.0.1:{proxy.port}")
        platform.wait_workers("who", 1)
        yield proxy, worker.pid


def load_of(platform: OnlinePlatform, connections: int, **document: Any) -> OnlineLoad:
    return OnlineLoad(platform.url, {"SIGNATURE": "who", **document}, connections=connections)


def is_worker_lost(call: MadeCall) -> bool:
    return call.status == 502 and " was lost with a call to 'who'" in call.body["ERROR"]


def test_a_cut_connection_fails_the_call_in_hand_and_the_worker_is_back_at_once(platform: OnlinePlatform) -> None:
    with far_worker(platform) as (proxy, pid), load_of(platform, 16, seconds=0.02) as load:
        for _ in range(3):
            load.wait_calls(20)
            proxy.cut()
            cut = time.monotonic()
            back = load.wait_for(lambda call, cut=cut: call.is_ok and call.ended > cut)  # type: ignore[misc]
            assert back.ended - cut < SILENCE + GRACE
        load.wait_calls(20)
        load.stop()

        assert len(load.failures) <= 3
        assert all(is_worker_lost(call) for call in load.failures), load.failures
        assert load.answers("pid") == {pid}
    assert (platform.modules / "loads.txt").read_text() == f"{pid}\n"


@pytest.mark.parametrize("way", ["stalled", "without_answers"])
def test_a_connection_on_which_nothing_comes_any_more_is_noticed_on_both_sides_and_made_anew(
    platform: OnlinePlatform, way: str
) -> None:
    with far_worker(platform) as (proxy, pid), load_of(platform, 4, seconds=0.02) as load:
        load.wait_calls(20)
        joined = len(platform.events("worker_joined"))

        with getattr(proxy, way)():
            began = time.monotonic()
            eventually(lambda: platform.events("worker_lost") and platform.events("gateway_lost"))
            noticed = time.monotonic()
        platform.wait_workers("who", 1)
        back = time.monotonic()
        load.wait_for(lambda call: call.is_ok and call.began > back)
        load.stop()

        assert noticed - began < SILENCE + GRACE
        assert len(platform.events("worker_joined")) > joined
        assert {call.status for call in load.failures} <= {502, 503, 504}, load.failures
        assert max(call.seconds for call in load.calls) < DEADLINE + GRACE
        assert load.answers("pid") == {pid}
    assert (platform.modules / "loads.txt").read_text() == f"{pid}\n"


def test_a_worker_dials_a_gateway_that_cannot_be_reached_until_it_can(platform: OnlinePlatform) -> None:
    with far_worker(platform) as (proxy, pid):
        with proxy.unreachable():
            eventually(lambda: platform.state_of("who") == "no_workers")
            eventually(lambda: platform.events("gateway_away"))
            refused = platform.http.post("/run", json={"SIGNATURE": "who"})
        platform.wait_workers("who", 1)

        assert refused.status_code == 503
        assert platform.http.post("/run", json={"SIGNATURE": "who"}).json()["pid"] == pid
    assert (platform.modules / "loads.txt").read_text() == f"{pid}\n"


@contextmanager
def client(platform: OnlinePlatform, **document: Any) -> Iterator[HTTPConnection]:
    """A client with a call under way."""
    with closing(HTTPConnection("127.0.0.1", platform.port, timeout=30)) as connection:
        connection.request("POST", "/run", json.dumps({"SIGNATURE": "who", **document}))
        yield connection


def waiting(platform: OnlinePlatform) -> int:
    return int(platform.http.get("/status").json()["queue_requests_current"])


def test_calls_of_clients_that_hang_up_leave_the_queue_and_the_worker_goes_on(platform: OnlinePlatform) -> None:
    with far_worker(platform) as (_, pid), client(platform, seconds=2) as begun:
        with ExitStack() as lost:
            for _ in range(10):
                lost.enter_context(client(platform, seconds=4))
            eventually(lambda: waiting(platform) == 10)
        eventually(lambda: waiting(platform) == 0)

        answer = platform.http.post("/run", json={"SIGNATURE": "who", "tag": "next"}).json()

        assert (answer["pid"], answer["tag"]) == (pid, "next")
        assert begun.getresponse().status == 200


def test_a_client_that_hangs_up_in_the_middle_of_its_call_harms_nobody(platform: OnlinePlatform) -> None:
    with far_worker(platform) as (_, pid):
        for _ in range(3):
            with client(platform, seconds=1) as begun, client(platform, seconds=0.02, tag="behind") as behind:
                eventually(lambda: waiting(platform) == 1)
                begun.close()
                assert json.load(behind.getresponse())["tag"] == "behind"

        assert platform.http.post("/run", json={"SIGNATURE": "who"}).json()["pid"] == pid
        assert waiting(platform) == 0

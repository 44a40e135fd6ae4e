"""The gateway dies under load, stays away, or has a second one beside it."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.online import ADMIN, OnlinePlatform
from tests.support.online_load import LOST_CONNECTION, OnlineLoad
from tests.support.told_endpoints import NUMBERED, WHO, numbered_content
from tests.support.waiting import eventually

CONNECTIONS = 16


def load_of(platform: OnlinePlatform, endpoint: str = "who") -> OnlineLoad:
    return OnlineLoad(platform.url, {"SIGNATURE": endpoint}, connections=CONNECTIONS)


def loads(platform: OnlinePlatform) -> list[str]:
    """The pids of processes that loaded the endpoint, one for each time."""
    return (platform.modules / "loads.txt").read_text().splitlines()


def test_a_gateway_that_is_killed_under_load_serves_again_with_the_same_workers(tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"who": {"NR_WORKERS": 2}})
    platform.write_module("who", WHO)
    with platform, load_of(platform) as load:
        platform.wait_workers("who", 2)
        before = {process.pid for process in platform.workers("who")}
        eventually(lambda: load.answers("pid") == before)

        for _ in range(3):
            platform.kill()
            killed = time.monotonic()
            platform.start()
            ready = time.monotonic() - killed
            load.wait_calls(200)
            assert ready < 15
        platform.wait_workers("who", 2)
        again = time.monotonic()
        eventually(lambda: {call.body["pid"] for call in load.since(again) if call.is_ok} == before)
        load.stop()

        assert {process.pid for process in platform.workers("who")} == before
        assert load.answers("pid") == before
        assert sorted(loads(platform)) == sorted(map(str, before))
        assert {call.status for call in load.failures} <= {LOST_CONNECTION, 503}
        assert {call.generation for call in load.calls if call.is_ok} == {1}


def test_what_was_installed_is_served_again_by_a_gateway_that_was_killed(tmp_path: Path) -> None:
    entry = {"NR_WORKERS": 2, "NEEDS_CONTENT": True}
    platform = OnlinePlatform(tmp_path, {"numbered": entry}, vector_endpoint="numbered")
    platform.write_module("numbered", NUMBERED)
    with platform:
        eventually(lambda: len(platform.http.get("/status").json()["workers"]) == 2)
        for number in (1, 2, 3):
            files = {"data": numbered_content(number, 2**20)}
            put = platform.http.put("/set_weights", data={"nn_id": f"n{number}"}, files=files, headers=ADMIN)
            assert put.json()["status"] is True
        (platform.modules / "loading.txt").unlink()
        before = {process.pid for process in platform.workers("numbered")}

        with load_of(platform, "numbered") as load:
            load.wait_calls(100)
            platform.kill()
            platform.start()
            load.wait_calls(100)

        answered = [call for call in load.calls if call.is_ok]
        assert {call.generation for call in answered} == {answered[0].generation}
        assert {call.body["during"] for call in answered} == {3}
        assert {process.pid for process in platform.workers("numbered")} == before
        assert not (platform.modules / "loading.txt").exists(), "a worker loaded again what it had in memory"


def test_a_worker_ends_when_no_gateway_comes_back(tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"who": {"NR_WORKERS": 1}})
    platform.write_module("who", WHO)
    with platform:
        (local,) = platform.workers("who")
        patient, impatient = platform.add_worker("who"), platform.add_worker("who", AWAY_SECONDS=1)
        platform.wait_workers("who", 3)

        platform.kill()

        assert impatient.wait(30) == 0
        assert patient.poll() is None
        assert local.is_running()
        assert local.environ()["AWAY_SECONDS"] == "60"
        platform.start()
        platform.wait_workers("who", 2)


@contextlib.contextmanager
def two_gateways(folder: Path) -> Iterator[tuple[OnlinePlatform, OnlinePlatform]]:
    with contextlib.ExitStack() as stack:
        both = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            platform = OnlinePlatform(folder / name, {"who": {"HOST": "192.0.2.1"}}, waits_until_ready=False)
            platform.write_module("who", WHO)
            both.append(stack.enter_context(platform))
        yield both[0], both[1]


def test_a_worker_of_two_gateways_goes_on_for_the_one_when_the_other_is_killed(tmp_path: Path) -> None:
    with two_gateways(tmp_path) as (one, other):
        worker = one.add_worker("who", f"unix://{one.worker_socket}", f"unix://{other.worker_socket}")
        one.wait_workers("who", 1)
        other.wait_workers("who", 1)
        with load_of(one) as dying, load_of(other) as living:
            dying.wait_calls(50)
            living.wait_calls(50)

            one.kill()
            living.wait_calls(200)
            one.start()
            one.wait_workers("who", 1)
            dying.wait_calls(50)
            living.wait_calls(50)

        assert living.failures == []
        assert living.answers("pid") == dying.answers("pid") == {worker.pid}


def test_a_worker_of_two_gateways_needs_neither_to_be_there_first(tmp_path: Path) -> None:
    with two_gateways(tmp_path) as (one, other):
        other.terminate()
        worker = one.add_worker("who", f"unix://{one.worker_socket}", f"unix://{other.worker_socket}")
        one.wait_workers("who", 1)

        other.start()
        other.wait_workers("who", 1)

        for platform in (one, other):
            assert platform.http.post("/run", json={"SIGNATURE": "who"}).json()["pid"] == worker.pid


@pytest.mark.parametrize("dies_first", ["gateway", "worker"])
def test_gateway_and_worker_may_die_together(dies_first: str, tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"who": {"NR_WORKERS": 2}})
    platform.write_module("who", WHO)
    with platform:
        platform.wait_workers("who", 2)
        victim, survivor = platform.workers("who")

        if dies_first == "worker":
            victim.kill()
        platform.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        platform.start()

        platform.wait_workers("who", 2)
        now = {process.pid for process in platform.workers("who")}
        assert survivor.pid in now
        assert victim.pid not in now

"""How the gateway ends: what it had accepted is answered, nothing runs on, and whoever stops it is told so."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.online import ADMIN, OnlinePlatform
from tests.support.waiting import eventually

SLOW = """
import time
from online_worker.endpoint import Endpoint


class SlowWorker(Endpoint):
    def predict(self, prepared):
        time.sleep(prepared["seconds"])
        return {"slept": prepared["seconds"]}
"""


def slow_platform(folder: Path, workers: int = 2, **settings: object) -> OnlinePlatform:
    platform = OnlinePlatform(folder, {"slow": {"NR_WORKERS": workers}}, **settings)
    platform.write_module("slow", SLOW)
    return platform


def call(platform: OnlinePlatform, seconds: float) -> httpx.Response:
    body = {"SIGNATURE": "slow", "seconds": seconds}
    return httpx.post(f"{platform.url}/run", json=body, timeout=60, trust_env=False)


def connections(platform: OnlinePlatform) -> int:
    """Established ones of clients at the gateway."""
    assert platform.process is not None
    found = psutil.Process(platform.process.pid).net_connections("tcp")
    return sum(one.status == "ESTABLISHED" and one.laddr.port == platform.port for one in found)


def test_calls_in_flight_and_calls_that_wait_are_answered_after_sigterm(tmp_path: Path) -> None:
    with slow_platform(tmp_path) as platform, ThreadPoolExecutor(8) as pool:
        platform.wait_workers("slow", 2)
        calls = [pool.submit(call, platform, 0.5) for _ in range(8)]
        eventually(lambda: connections(platform) >= 8)

        platform.terminate()

        assert [one.result().status_code for one in calls] == [200] * 8
        assert platform.workers() == []


def test_it_is_not_ready_and_still_answers_while_it_leaves(tmp_path: Path) -> None:
    with slow_platform(tmp_path, leave_seconds=5) as platform:
        assert platform.process is not None
        platform.process.terminate()

        eventually(lambda: platform.readiness().get("status") == "leaving")

        unready = platform.http.get("/health/ready")
        assert (unready.status_code, unready.headers["retry-after"]) == (503, "2")
        assert call(platform, 0).status_code == 200
        assert platform.http.get("/health/live").status_code == 200


def test_a_call_that_takes_too_long_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with slow_platform(tmp_path, workers=1, call_drain_seconds=1) as platform, ThreadPoolExecutor(1) as pool:
        endless = pool.submit(call, platform, 25)
        eventually(lambda: connections(platform) >= 2)
        began = time.monotonic()

        platform.terminate()

        assert time.monotonic() - began < 20
        assert platform.workers() == []
        assert endless.result().status_code == 503
        assert endless.result().headers["retry-after"] == "2"
        assert "stopped" in endless.result().json()["detail"]


def test_a_client_that_goes_away_leaves_no_error_in_the_log(tmp_path: Path) -> None:
    with slow_platform(tmp_path, workers=1) as platform:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{platform.url}/run", json={"SIGNATURE": "slow", "seconds": 1}, timeout=0.5, trust_env=False)

        assert call(platform, 0).status_code == 200
        platform.terminate()
        assert "Traceback" not in platform.log


def test_the_shutdown_call_ends_everything_in_order(tmp_path: Path) -> None:
    with slow_platform(tmp_path) as platform:
        refused = platform.http.post("/shutdown", json={"SIGNATURE": "something else"})
        taken = platform.http.post("/shutdown", json={"SIGNATURE": "SAFE_KILL_SERVER_CMD"})

        assert (refused.status_code, taken.status_code) == (422, 200)
        assert platform.process is not None
        assert platform.process.wait(30) == 0
        assert platform.workers() == []


def test_beyond_loopback_the_shutdown_call_needs_the_admin_token(tmp_path: Path) -> None:
    with slow_platform(tmp_path, host="0.0.0.0") as platform:
        command = {"SIGNATURE": "SAFE_KILL_SERVER_CMD"}

        assert platform.http.post("/shutdown", json=command).status_code == 401
        assert platform.http.post("/kill_server", json={"SIGNATURE": "slow"}).status_code == 401
        assert platform.is_ready()
        assert platform.http.post("/shutdown", json=command, headers=ADMIN).status_code == 200
        assert platform.process is not None
        assert platform.process.wait(30) == 0

"""Workers are killed, stopped and hang under load: what they had in hand fails at once, and nothing else."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.online import OnlinePlatform
from tests.support.online_load import MadeCall, OnlineLoad
from tests.support.told_endpoints import WHO
from tests.support.waiting import eventually

SILENCE = 1.5
DEADLINE = 5.0
GRACE = 2.0
"""Seconds that a loaded machine may take to bring an answer that is due."""
FULL_STRENGTH = 3.0
IN_FLIGHT = {"fast": 64, "slow": 1}
"""The most calls that one worker has in hand."""
TELL = {"fast": {}, "slow": {"seconds": 0.02}}


@contextmanager
def who_platform(folder: Path, *, workers: int = 2, deadline: float = DEADLINE) -> Iterator[OnlinePlatform]:
    entry = {"NR_WORKERS": workers, "DEADLINE_SECONDS": deadline}
    platform = OnlinePlatform(folder, {"who": entry}, silence_seconds=SILENCE)
    platform.write_module("who", WHO)
    with platform:
        platform.wait_workers("who", workers)
        yield platform


def load_of(platform: OnlinePlatform, connections: int, **document: Any) -> OnlineLoad:
    return OnlineLoad(platform.url, {"SIGNATURE": "who", **document}, connections=connections)


def is_worker_lost(call: MadeCall) -> bool:
    return call.status == 502 and " was lost with a call to 'who'" in call.body["ERROR"]


def assert_none_took_longer_than_its_deadline(load: OnlineLoad) -> None:
    assert max(call.seconds for call in load.calls) < DEADLINE + GRACE


@pytest.mark.parametrize("speed", ["fast", "slow"])
def test_a_worker_that_is_killed_under_load_takes_only_the_calls_in_its_hands_along(speed: str, tmp_path: Path) -> None:
    with who_platform(tmp_path) as platform, load_of(platform, 64, **TELL[speed]) as load:
        load.wait_calls(200)
        before = load.answers("pid")
        victim = platform.workers("who")[0]
        assert victim.pid in before

        victim.kill()
        killed = time.monotonic()
        back = load.wait_for(lambda call: call.is_ok and call.body["pid"] not in before)
        load.wait_calls(200)
        load.stop()

        assert back.ended - killed < FULL_STRENGTH
        assert len(load.answers("pid")) == 3
        assert len(load.failures) <= IN_FLIGHT[speed]
        assert all(is_worker_lost(call) for call in load.failures), load.failures
        assert_none_took_longer_than_its_deadline(load)


def test_workers_that_are_killed_again_and_again_fail_no_call_that_waits(tmp_path: Path) -> None:
    with who_platform(tmp_path) as platform, load_of(platform, 16, **TELL["slow"]) as load:
        load.wait_calls(50)
        for _ in range(4):
            victim = platform.workers("who")[0]

            victim.kill()

            eventually(lambda gone=victim.pid: gone not in {one.pid for one in platform.workers("who")})
            platform.wait_workers("who", 2)
            load.wait_calls(50)
        load.stop()

        assert len(load.failures) <= 4
        assert all(is_worker_lost(call) for call in load.failures), load.failures
        assert_none_took_longer_than_its_deadline(load)


def test_the_only_worker_is_killed_and_the_calls_that_wait_are_answered_by_the_next(tmp_path: Path) -> None:
    with who_platform(tmp_path, workers=1) as platform, load_of(platform, 16, **TELL["slow"]) as load:
        load.wait_calls(50)

        platform.workers("who")[0].kill()

        eventually(lambda: len(load.answers("pid")) == 2)
        load.wait_calls(50)
        load.stop()
        assert len(load.failures) <= 1
        assert all(is_worker_lost(call) for call in load.failures), load.failures


@pytest.mark.parametrize("speed", ["fast", "slow"])
def test_a_worker_that_is_stopped_under_load_is_replaced_within_the_heartbeat_limit(speed: str, tmp_path: Path) -> None:
    with who_platform(tmp_path) as platform, load_of(platform, 16, **TELL[speed]) as load:
        load.wait_calls(200)
        before = load.answers("pid")
        victim = platform.workers("who")[0]

        victim.suspend()
        stopped = time.monotonic()
        eventually(lambda: _is_gone(victim))
        noticed = time.monotonic()
        load.wait_for(lambda call: call.is_ok and call.body["pid"] not in before)
        load.wait_calls(200)
        load.stop()

        assert noticed - stopped < SILENCE + GRACE
        assert len(load.failures) <= min(16, IN_FLIGHT[speed])
        assert all(is_worker_lost(call) and "said nothing" in call.body["ERROR"] for call in load.failures), (
            load.failures
        )
        assert_none_took_longer_than_its_deadline(load)
        with pytest.raises(psutil.NoSuchProcess):
            victim.resume()


def _is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_worker_that_nobody_here_started_comes_back_by_itself_when_it_goes_on(tmp_path: Path) -> None:
    platform = OnlinePlatform(
        tmp_path, {"who": {"HOST": "192.0.2.1"}}, waits_until_ready=False, worker_port=0, silence_seconds=SILENCE
    )
    platform.write_module("who", WHO)
    with platform:
        stopped, other = (platform.add_worker("who", f"tcp://127.0.0.1:{platform.worker_port}") for _ in range(2))
        platform.wait_workers("who", 2)
        with load_of(platform, 8, **TELL["slow"]) as load:
            load.wait_calls(20)

            stopped.send_signal(signal.SIGSTOP)
            platform.wait_workers("who", 1)
            alone = time.monotonic()
            load.wait_calls(20)
            stopped.send_signal(signal.SIGCONT)
            platform.wait_workers("who", 2)
            load.wait_for(lambda call: call.began > alone and call.is_ok and call.body["pid"] == stopped.pid)

        assert len(load.failures) <= 1
        assert all(is_worker_lost(call) for call in load.failures), load.failures
        assert load.answers("pid") == {stopped.pid, other.pid}


@pytest.mark.parametrize("way", ["hang", "spin"])
def test_a_call_that_never_ends_has_its_worker_replaced_while_others_are_served(way: str, tmp_path: Path) -> None:
    with who_platform(tmp_path, deadline=1.0) as platform, load_of(platform, 8, **TELL["slow"]) as load:
        load.wait_calls(50)
        before = {one.pid for one in platform.workers("who")}

        began = time.monotonic()
        answer = platform.http.post("/run", json={"SIGNATURE": "who", way: True})
        seconds = time.monotonic() - began
        load.wait_for(lambda call: call.is_ok and call.body["pid"] not in before)
        platform.wait_workers("who", 2)
        load.stop()

        assert answer.status_code == 504, answer.text
        assert "was not answered in its 1 s" in answer.json()["ERROR"]
        assert 1.0 <= seconds < 1.0 + GRACE
        assert load.failures == []
        assert len(before & {one.pid for one in platform.workers("who")}) == 1


@pytest.mark.parametrize("way", ["hang", "spin"])
def test_a_worker_of_another_host_ends_itself_when_a_call_never_ends(way: str, tmp_path: Path) -> None:
    entry = {"HOST": "192.0.2.1", "DEADLINE_SECONDS": 1.0}
    platform = OnlinePlatform(tmp_path, {"who": entry}, waits_until_ready=False, worker_port=0, silence_seconds=SILENCE)
    platform.write_module("who", WHO)
    with platform:
        worker = platform.add_worker("who", f"tcp://127.0.0.1:{platform.worker_port}")
        platform.wait_workers("who", 1)

        answer = platform.http.post("/run", json={"SIGNATURE": "who", way: True})

        assert answer.status_code == 504
        assert worker.wait(30) != 0
        (event,) = platform.events("call_never_ends")
        assert event["endpoint"] == "who"


def test_a_long_call_within_its_time_is_no_hang(tmp_path: Path) -> None:
    with who_platform(tmp_path, workers=1, deadline=30) as platform:
        (before,) = platform.workers("who")

        answer = platform.http.post("/run", json={"SIGNATURE": "who", "seconds": 3 * SILENCE})

        assert answer.json()["pid"] == before.pid


def test_a_worker_that_is_told_to_end_is_replaced_and_fails_no_call(tmp_path: Path) -> None:
    with who_platform(tmp_path) as platform, load_of(platform, 8, **TELL["slow"]) as load:
        load.wait_calls(20)
        victim, other = platform.workers("who")

        os.kill(victim.pid, signal.SIGTERM)

        eventually(lambda: _is_gone(victim))
        platform.wait_workers("who", 2)
        load.stop()
        assert other.pid in {one.pid for one in platform.workers("who")}
        assert load.failures == []

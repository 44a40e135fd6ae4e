"""A gateway that was killed finds its workers again, and touches no process that is not its own."""

import json
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

SUPPORT = """
import time
while True:
    time.sleep(0.1)
"""


def test_the_workers_of_a_killed_gateway_are_taken_over(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path, {"echo": {"ENGINE": "echo", "NR_WORKERS": 2}}) as platform:
        platform.wait_workers("echo", 2)
        before = platform.workers_by_id("echo")

        platform.kill()
        platform.start()
        platform.wait_workers("echo", 2)

        assert platform.workers_by_id("echo") == before
        assert len(platform.events("worker_adopted")) == 2
        assert platform.http.post("/run", json={"SIGNATURE": "echo", "a": 1}).json()["a"] == 1
        platform.terminate()
        _, alive = psutil.wait_procs([process for _, process in before], timeout=10)
        assert alive == []


def test_an_adopted_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path, {"echo": {"ENGINE": "echo"}}) as platform:
        platform.kill()
        platform.start()
        ((before, process),) = platform.workers_by_id("echo")

        process.kill()

        eventually(lambda: platform.workers_by_id("echo") and platform.workers_by_id("echo")[0][0] != before)
        platform.wait_workers("echo", 1)


def test_workers_that_nobody_wants_any_more_are_ended(tmp_path: Path) -> None:
    endpoints = {"echo": {"ENGINE": "echo", "NR_WORKERS": 2}, "gone": {"ENGINE": "echo"}}
    with OnlinePlatform(tmp_path, endpoints) as platform:
        platform.wait_workers("echo", 2)
        platform.kill()
        before = platform.workers()

        platform.configure({"echo": {"ENGINE": "echo", "NR_WORKERS": 1}})
        platform.start()

        platform.wait_workers("echo", 1)
        eventually(lambda: sum(process.is_running() for process in before) == 1, 60)


def test_a_process_that_merely_has_the_pid_of_a_worker_is_let_alone(tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"echo": {"ENGINE": "echo"}})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as innocent:
        began = psutil.Process(innocent.pid).create_time()
        records = [
            {"worker_id": "echo-1-aaaa", "pool": "echo", "pid": innocent.pid, "create_time": began - 100},
            {"worker_id": "echo-2-bbbb", "pool": "echo", "pid": innocent.pid, "create_time": began},
            {"worker_id": "echo-3-cccc", "pool": "echo", "pid": 2**22 + 1, "create_time": began},
        ]
        platform.data_dir.mkdir()
        (platform.data_dir / "local_workers.json").write_text(json.dumps(records))
        (platform.data_dir / "support_processes.json").write_text(json.dumps(records))

        with platform:
            platform.wait_workers("echo", 1)
            assert platform.events("worker_adopted") == []

        assert innocent.poll() is None
        innocent.communicate(b"\n", timeout=30)


def test_a_spoilt_record_does_not_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"echo": {"ENGINE": "echo"}})
    platform.data_dir.mkdir()
    (platform.data_dir / "local_workers.json").write_text("[{")

    with platform:
        platform.wait_workers("echo", 1)


def test_a_support_process_is_kept_running_and_never_runs_twice(tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"watch": {"HOST": "NO_HOST"}})
    platform.write_module("watch", SUPPORT)

    def running() -> list[psutil.Process]:
        mine = str(platform.modules / "watch.py")
        return [process for process in psutil.process_iter() if mine in _command(process)]

    with platform:
        (first,) = eventually(running)
        first.kill()
        (second,) = eventually(lambda: [process for process in running() if process != first])

        platform.kill()
        assert second.is_running()
        platform.start()

        eventually(lambda: len(running()) == 1 and running() != [second])
        platform.terminate()
        assert running() == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []

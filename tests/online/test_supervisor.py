"""Local workers are kept alive: the dead and the hung are replaced, and their number follows what is asked for."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

SILENCE = 1.5

ENVIRONMENT = """
import os
from online_worker.endpoint import Endpoint


class EnvironmentWorker(Endpoint):
    def predict(self, prepared):
        return {"environment": dict(os.environ), "folder": os.getcwd()}
"""

STUBBORN = """
import time
from online_worker.endpoint import Endpoint


class StubbornWorker(Endpoint):
    def predict(self, prepared):
        while prepared.get("hang"):
            time.sleep(0.1)
        return {"ok": True}
"""

FORKING = """
import os, signal, time
from online_worker.endpoint import Endpoint


class ForkingWorker(Endpoint):
    def predict(self, prepared):
        child = os.fork()
        if child == 0:
            signal.pause()
        self.context.notify("child", str(child))
        time.sleep(0.1)
        os._exit(3)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    endpoints = {
        "echo": {"ENGINE": "echo", "NR_WORKERS": 2},
        "environment": {"NR_WORKERS": 1},
        "stubborn": {"NR_WORKERS": 1, "DEADLINE_SECONDS": 0.5},
        "forking": {"NR_WORKERS": 1},
    }
    platform = OnlinePlatform(tmp_path_factory.mktemp("supervisor"), endpoints, silence_seconds=SILENCE)
    platform.write_module("environment", ENVIRONMENT)
    platform.write_module("stubborn", STUBBORN)
    platform.write_module("forking", FORKING)
    with platform:
        platform.wait_workers("echo", 2)
        yield platform


def call(platform: OnlinePlatform, endpoint: str, **document: object) -> httpx.Response:
    return platform.http.post("/run", json={"SIGNATURE": endpoint, **document})


def pids(platform: OnlinePlatform, endpoint: str) -> set[int]:
    return {process.pid for process in platform.workers(endpoint)}


def test_a_killed_worker_is_replaced(platform: OnlinePlatform) -> None:
    before = pids(platform, "echo")
    victim = min(before)

    os.kill(victim, signal.SIGKILL)

    eventually(lambda: len(pids(platform, "echo") - before) == 1, 30)
    platform.wait_workers("echo", 2)
    assert pids(platform, "echo") & before == before - {victim}
    assert call(platform, "echo", a=1).json()["a"] == 1


def test_a_stopped_worker_is_noticed_by_its_silence_and_replaced(platform: OnlinePlatform) -> None:
    victim = platform.workers("echo")[0]

    victim.suspend()

    assert victim.wait(30) is not None or not victim.is_running()
    platform.wait_workers("echo", 2)
    assert victim.pid not in pids(platform, "echo")


def test_a_worker_that_sits_on_a_call_past_its_deadline_is_replaced(platform: OnlinePlatform) -> None:
    (before,) = pids(platform, "stubborn")

    answer = call(platform, "stubborn", hang=True)

    assert answer.status_code == 504
    eventually(lambda: pids(platform, "stubborn") - {before}, 30)
    platform.wait_workers("stubborn", 1)
    assert call(platform, "stubborn").json()["ok"] is True


def test_a_dead_worker_is_noticed_at_once_although_what_it_forked_holds_its_connection(
    platform: OnlinePlatform,
) -> None:
    answer = call(platform, "forking")

    assert answer.status_code == 502
    assert "its process has ended" in answer.json()["ERROR"]
    (told,) = platform.http.post("/notifications", json={"SIGNATURE": "forking"}).json()["GENERAL"]
    eventually(lambda: not psutil.pid_exists(int(told["NOTIF"])) or has_ended(int(told["NOTIF"])))


def has_ended(pid: int) -> bool:
    """Also where nobody has collected its status yet."""
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_workers_are_added_and_taken_away_while_it_runs(platform: OnlinePlatform) -> None:
    before = pids(platform, "echo")

    grown = platform.http.post("/update_workers", json={"SIGNATURE": "echo", "NR_WORKERS": 4})
    platform.wait_workers("echo", 4)
    assert pids(platform, "echo") > before
    shrunk = platform.http.post("/update_workers", json={"SIGNATURE": "echo", "NR_WORKERS": 2})
    platform.wait_workers("echo", 2)

    assert (grown.status_code, shrunk.status_code) == (200, 200)
    eventually(lambda: len(platform.workers("echo")) == 2)
    assert call(platform, "echo", a=1).status_code == 200


@pytest.mark.parametrize("number", ["0", "257", "-1", "many", "", "9" * 5000])
def test_a_number_of_workers_that_makes_no_sense_is_refused(platform: OnlinePlatform, number: str) -> None:
    answer = platform.http.post("/update_workers", json={"SIGNATURE": "echo", "NR_WORKERS": number})

    assert answer.status_code == 422
    assert platform.state_of("echo") == "ready"


def test_a_killed_server_ends_its_workers_and_a_started_one_has_them_again(platform: OnlinePlatform) -> None:
    assert platform.http.post("/kill_server", json={"SIGNATURE": "echo"}).status_code == 200
    eventually(lambda: platform.workers("echo") == [])

    refused = call(platform, "echo")
    readiness = platform.http.get("/health/ready")
    assert platform.http.post("/start_server", json={"SIGNATURE": "echo"}).status_code == 200
    answered = call(platform, "echo", a=1)

    assert refused.status_code in {404, 503}
    assert (readiness.status_code, readiness.json()["endpoints"]["echo"]["state"]) == (200, "disabled")
    assert answered.status_code == 200
    platform.wait_workers("echo", 2)


def test_a_worker_is_told_no_secret_and_runs_in_the_files_folder(platform: OnlinePlatform) -> None:
    answer = call(platform, "environment").json()

    environment = answer["environment"]
    assert answer["folder"] == str(platform.folder)
    assert environment["ENDPOINT"] == "environment"
    assert platform.worker_token not in environment.values()
    assert platform.admin_token not in environment.values()
    assert "DATA_DIR" not in environment
    assert Path(environment["WORKER_TOKEN_FILE"]).stat().st_mode & 0o077 == 0


def test_the_command_line_of_a_worker_shows_no_secret(platform: OnlinePlatform) -> None:
    shown = json.dumps([process.cmdline() for process in platform.workers()])

    assert platform.worker_token not in shown


def test_a_worker_does_not_end_when_its_terminal_is_interrupted(platform: OnlinePlatform) -> None:
    (worker,) = platform.workers("environment")
    assert platform.process is not None

    assert os.getpgid(worker.pid) == worker.pid
    assert os.getpgid(worker.pid) != os.getpgid(platform.process.pid)


def test_everything_ends_in_order(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path, {"echo": {"ENGINE": "echo", "NR_WORKERS": 2}}) as platform:
        platform.wait_workers("echo", 2)
        workers = platform.workers()

        platform.terminate()

        _, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []
        assert platform.events("worker_not_ended") == []
        assert platform.events("worker_killed") == []
        assert len(platform.events("worker_ended")) == 2

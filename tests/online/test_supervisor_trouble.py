"""What cannot be kept alive is given up loudly, readiness says so, and it can be started again."""

from pathlib import Path

from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

DIES = """
import os
os._exit(3)
"""

WORKS = """
from online_worker.endpoint import Endpoint


class FragileWorker(Endpoint):
    def predict(self, prepared):
        return {"ok": True}
"""

REFUSES = """
from online_worker.endpoint import Endpoint


class FragileWorker(Endpoint):
    def load(self, content):
        raise RuntimeError("the weights are not there")
"""


def test_a_worker_that_always_dies_is_given_up_and_may_be_started_again(tmp_path: Path) -> None:
    endpoints = {"fragile": {"NR_WORKERS": 1}, "echo": {"ENGINE": "echo"}}
    platform = OnlinePlatform(tmp_path, endpoints, waits_until_ready=False)
    platform.write_module("fragile", DIES)
    with platform:
        eventually(lambda: platform.state_of("fragile") == "given_up", 100)
        eventually(lambda: platform.state_of("echo") == "ready")

        readiness = platform.http.get("/health/ready")
        refused = platform.http.post("/run", json={"SIGNATURE": "fragile"})
        assert readiness.status_code == 503
        assert "6 times in a row" in readiness.json()["endpoints"]["fragile"]["reason"]
        assert "status 3" in readiness.json()["endpoints"]["fragile"]["reason"]
        assert refused.status_code == 503
        assert len(platform.events("worker_died")) == 5
        assert len(platform.events("worker_given_up")) == 1
        assert platform.http.post("/run", json={"SIGNATURE": "echo"}).status_code == 200

        platform.write_module("fragile", WORKS)
        assert platform.http.post("/start_server", json={"SIGNATURE": "fragile"}).status_code == 200
        platform.wait_ready()
        assert platform.http.post("/run", json={"SIGNATURE": "fragile"}).json()["ok"] is True


def test_an_endpoint_that_cannot_load_is_not_ready_and_says_why(tmp_path: Path) -> None:
    platform = OnlinePlatform(tmp_path, {"fragile": {}, "echo": {"ENGINE": "echo"}}, waits_until_ready=False)
    platform.write_module("fragile", REFUSES)
    with platform:
        eventually(lambda: platform.state_of("fragile") == "given_up")

        assert "the weights are not there" in platform.readiness()["endpoints"]["fragile"]["reason"]
        assert not platform.is_ready()


def test_an_endpoint_whose_file_is_missing_keeps_no_other_from_being_served(tmp_path: Path) -> None:
    endpoints = {"wrong": {"ENGINE": "echo", "CONTENT": "missing.onnx"}, "echo": {"ENGINE": "echo"}}
    with OnlinePlatform(tmp_path, endpoints, waits_until_ready=False) as platform:
        eventually(lambda: platform.state_of("echo") == "ready")

        shown = platform.readiness()["endpoints"]["wrong"]
        assert shown["state"] == "given_up"
        assert "missing.onnx" in shown["reason"]


def test_an_endpoint_whose_workers_are_elsewhere_is_not_ready_before_one_dials_in(tmp_path: Path) -> None:
    endpoints = {"far": {"ENGINE": "echo", "HOST": "192.0.2.1", "NR_WORKERS": 3}}
    with OnlinePlatform(tmp_path, endpoints, waits_until_ready=False) as platform:
        assert platform.state_of("far") == "no_workers"
        assert "infer worker --endpoint far" in platform.readiness()["endpoints"]["far"]["reason"]
        assert platform.workers() == []

        platform.add_worker("far")

        platform.wait_workers("far", 1)
        assert platform.http.post("/run", json={"SIGNATURE": "far", "a": 2}).json()["a"] == 2


def test_what_awaits_its_first_upload_and_what_is_disabled_keep_nobody_waiting(tmp_path: Path) -> None:
    endpoints = {"empty": {"ENGINE": "echo", "NEEDS_CONTENT": True}, "off": {"ENGINE": "echo", "DISABLED": True}}
    with OnlinePlatform(tmp_path, endpoints) as platform:
        assert platform.http.get("/health/live").json() == {"status": "ok"}
        assert (platform.state_of("empty"), platform.state_of("off")) == ("empty", "disabled")
        assert platform.http.post("/run", json={"SIGNATURE": "off"}).status_code == 404

        assert platform.http.post("/start_server", json={"SIGNATURE": "off"}).status_code == 200

        assert platform.http.post("/run", json={"SIGNATURE": "off", "a": 1}).json()["a"] == 1

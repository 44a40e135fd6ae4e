"""``infer up`` serves online endpoints beside the batch path; neither needs the other."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.hostile_models import zip_of
from tests.support.standalone import INFER, InferUp
from tests.support.waiting import eventually

ADDS = """
from online_worker.endpoint import Endpoint


class AddsWorker(Endpoint):
    def predict(self, prepared):
        return {"sum": prepared["a"] + prepared["b"] + self.context.config["OFFSET"]}
"""


@pytest.fixture(scope="module")
def endpoints_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoints")
    (folder / "endpoints").mkdir()
    (folder / "endpoints" / "adds.py").write_text(ADDS)
    entries = {
        "adds": {"NR_WORKERS": 1, "OFFSET": 100},
        "needy": {"ENGINE": "echo", "REQUIRES": ["a_module_that_nobody_has"]},
    }
    path = folder / "config.json"
    path.write_text(json.dumps({"CONFIG_ENDPOINTS": entries}))
    return path


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, all_models_folder: Path, endpoints_file: Path) -> Iterator[InferUp]:
    options = (
        "--examples",
        "--runner",
        "process",
        "--models",
        str(all_models_folder),
        "--endpoints",
        str(endpoints_file),
    )
    with InferUp(tmp_path_factory.mktemp("up"), *options) as running:
        yield running


def call(up: InferUp, endpoint: str, **document: object) -> httpx.Response:
    return httpx.post(f"{up.online_url}/run", json={"SIGNATURE": endpoint, **document}, timeout=30, trust_env=False)


def passes_a_task(up: InferUp, folder: Path) -> bool:
    """Whether the batch path still works."""
    with httpx.Client(base_url=up.url, timeout=90, trust_env=False) as http:
        files = {"zip_file": zip_of(folder / "in.zip", {"a": "b"}).read_bytes()}
        uid = http.post("/api/tasks/", params={"model_human_readable_id": "pass-through"}, files=files).json()
        return http.get(f"/api/tasks/{uid}", params={"wait": 60}).status_code == 200


def child(up: InferUp, part: str) -> psutil.Process:
    """The child that listens where the part is reached."""
    port = int((up.online_url if part == "online" else up.url).rpartition(":")[2])
    for process in psutil.Process(up.process.pid).children():
        if any(one.status == "LISTEN" and one.laddr.port == port for one in process.net_connections()):
            return process
    raise AssertionError(f"no child serves {part}")


def test_the_endpoints_of_the_file_are_ready_when_the_platform_says_so(up: InferUp) -> None:
    assert call(up, "adds", a=1, b=2).json()["sum"] == 103
    assert "(adds)" in next(line for line in up.lines if line.startswith("Online endpoints at "))


def test_an_endpoint_whose_packages_are_missing_is_left_out_and_named(up: InferUp) -> None:
    assert "  needy: not served, needs the Python packages a_module_that_nobody_has\n" in up.lines
    assert call(up, "needy").status_code == 404


def test_the_batch_path_works_beside_it(up: InferUp, tmp_path: Path) -> None:
    assert passes_a_task(up, tmp_path)


def test_the_batch_path_works_while_the_gateway_is_stopped(up: InferUp, tmp_path: Path) -> None:
    gateway = child(up, "online")
    gateway.suspend()
    try:
        assert passes_a_task(up, tmp_path)
    finally:
        gateway.resume()

    assert call(up, "adds", a=1, b=2).status_code == 200


def test_the_gateway_works_while_the_batch_services_are_stopped(up: InferUp) -> None:
    gateway = child(up, "online")
    others = [process for process in psutil.Process(up.process.pid).children() if process != gateway]
    for process in others:
        process.suspend()
    try:
        assert call(up, "adds", a=1, b=2).json()["sum"] == 103
    finally:
        for process in others:
            process.resume()


def test_a_killed_gateway_is_back_with_the_same_workers(up: InferUp, tmp_path: Path) -> None:
    gateway = child(up, "online")
    workers = {process.pid for process in gateway.children()}

    gateway.kill()

    assert passes_a_task(up, tmp_path)
    answer = eventually(lambda: _answered(up), 60)
    assert answer.json()["sum"] == 103
    assert all(psutil.pid_exists(pid) for pid in workers)


def _answered(up: InferUp) -> httpx.Response | None:
    try:
        answer = call(up, "adds", a=1, b=2)
    except httpx.TransportError:
        return None
    return answer if answer.is_success else None


def test_the_worker_token_is_kept_where_only_its_owner_can_read_it(up: InferUp) -> None:
    path = up.data / "online" / "worker_token"

    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text()) >= 32


def test_the_examples_answer(tmp_path: Path) -> None:
    with InferUp(tmp_path / "data", "--examples", "--runner", "process") as up:
        (line,) = [line for line in up.lines if line.startswith("Online endpoints at ")]
        assert "echo, iris, ocr, vector_sum" in line
        assert call(up, "echo", a=1).json()["a"] == 1
        token = (up.data / "online" / "worker_token").read_text()
        workers = [one for one in psutil.Process(up.process.pid).children(recursive=True) if _is_worker(one)]
        assert up.interrupt() == 0

    assert len(workers) >= 5
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    with InferUp(tmp_path / "data", "--runner", "process") as again:
        assert (again.data / "online" / "worker_token").read_text() == token


def _is_worker(process: psutil.Process) -> bool:
    return "online_worker" in process.cmdline()


def test_nothing_of_it_runs_on_after_the_command_was_killed(tmp_path: Path, endpoints_file: Path) -> None:
    with InferUp(tmp_path / "data", "--runner", "process", "--endpoints", str(endpoints_file)) as up:
        family = psutil.Process(up.process.pid).children(recursive=True)
        assert any(_is_worker(one) for one in family)

        up.process.kill()
        up.process.wait(60)

        _, alive = psutil.wait_procs(family, timeout=40)
        assert alive == []


def _fails(*options: str, folder: Path) -> str:
    command = [INFER, "up", "--data", str(folder / "data"), "--port", "0", "--runner", "process", *options]
    environment = {**os.environ, "CI": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_online_port_is_said_with_its_option(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        message = _fails("--online-port", str(port), folder=tmp_path)

    assert f"127.0.0.1:{port}" in message
    assert "--online-port" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("no json", "is not JSON"),
        ('{"CONFIG_ENDPOINTS": {"a": {"NR_WORKERS": -1}}}', "CONFIG_ENDPOINTS.a: NR_WORKERS"),
        ('{"CONFIG_ENDPOINTS": {"a": {"REQUIRES": "numpy"}}}', "CONFIG_ENDPOINTS.a.REQUIRES"),
    ],
)
def test_a_file_with_a_mistake_is_said_in_one_line(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)

    message = _fails("--online-port", "0", "--endpoints", str(tmp_path / "config.json"), folder=tmp_path)

    assert expected in message
    assert message.count("\n") == 1


def test_no_startup_wait_says_ready_before_the_endpoints_are(tmp_path: Path) -> None:
    entries = {"far": {"ENGINE": "echo", "HOST": "192.0.2.1"}}
    (tmp_path / "config.json").write_text(json.dumps({"NO_STARTUP_WAIT": True, "CONFIG_ENDPOINTS": entries}))
    options = ("--runner", "process", "--endpoints", str(tmp_path / "config.json"))

    with InferUp(tmp_path / "data", *options) as up:
        assert up.online_url
        lines = eventually(lambda: [line for line in up.lines if line.startswith("  far: not ready")])

    assert "infer worker --endpoint far" in lines[0]

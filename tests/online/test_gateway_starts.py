"""What a gateway finds in its folder when it starts, what it shares with another one there, and what keeps it out."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from standalone.layout import default_models_folder
from tests.support.online import OnlinePlatform
from tests.support.ports import free_port
from tests.support.requirements import missing
from tests.support.waiting import eventually

MODEL_HOSTS = {"modelhost": {"ENGINE": "onnx", "NR_WORKERS": 1}}


@pytest.fixture
def iris() -> bytes:
    folder = default_models_folder()
    if folder is None or find_spec("onnxruntime") is None:
        missing("the example model or onnxruntime is not here")
    return (folder / "iris" / "iris.onnx").read_bytes()


def upload(platform: OnlinePlatform, name: str, content: bytes) -> httpx.Response:
    return platform.http.put(f"/api/v1/models/{name}.onnx", files={"path": (f"{name}.onnx", content)})


def listed(platform: OnlinePlatform) -> list[str]:
    models: list[str] = platform.http.get("/api/v1/models").json()["model_list"]
    return models


def host_is_there(platform: OnlinePlatform) -> bool:
    return bool(platform.events("worker_joined"))


def test_an_uploaded_endpoint_is_there_again_after_a_restart_with_its_description(tmp_path: Path, iris: bytes) -> None:
    with OnlinePlatform(tmp_path, MODEL_HOSTS) as platform:
        eventually(lambda: host_is_there(platform))
        assert upload(platform, "mine", iris).status_code == 201
        described = platform.http.post("/api/v1/models/mine.onnx", json={"model_description": "what it tells"})
        assert described.status_code == 200

        platform.kill()
        platform.start()
        platform.wait_workers("mine.onnx", 1)

        assert listed(platform) == ["mine.onnx"]
        shown = platform.http.get("/api/v1/models/information").json()["model_list"]
        assert shown == [{"model": "mine.onnx", "description": "what it tells"}]
        assert platform.readiness()["endpoints"]["mine.onnx"]["generation"] == 1
        values = platform.http.post("/api/v1/models/mine.onnx/prediction", json={"values": [[5.1, 3.5, 1.4, 0.2]]})
        assert values.status_code == 200, values.text


def test_an_upload_whose_file_was_spoilt_keeps_it_from_being_ready_until_it_is_uploaded_again(
    tmp_path: Path, iris: bytes
) -> None:
    with OnlinePlatform(tmp_path, MODEL_HOSTS) as platform:
        eventually(lambda: host_is_there(platform))
        assert upload(platform, "mine", iris).status_code == 201
        platform.terminate()
        (platform.data_dir / "endpoints" / "mine.onnx" / "1" / "content").write_bytes(iris[:100])
        (platform.data_dir / "worker_token").write_bytes(b"\xff")

        platform.start_unready()
        shown = platform.http.get("/health/ready")
        eventually(lambda: len(platform.events("worker_joined")) == 2)
        again = upload(platform, "mine", iris)

        assert shown.status_code == 503
        assert "spoilt" in shown.json()["endpoints"]["mine.onnx"]["reason"]
        assert again.status_code == 201
        platform.wait_ready()


def test_a_removed_endpoint_is_gone_after_a_restart(tmp_path: Path, iris: bytes) -> None:
    with OnlinePlatform(tmp_path, MODEL_HOSTS) as platform:
        eventually(lambda: host_is_there(platform))
        assert upload(platform, "mine", iris).status_code == 201

        assert platform.http.delete("/api/v1/models/mine.onnx").status_code == 200
        platform.restart()

        assert listed(platform) == []
        assert list((platform.data_dir / "endpoints").iterdir()) == []


def test_an_upload_that_no_worker_can_load_leaves_no_endpoint(tmp_path: Path, iris: bytes) -> None:
    with OnlinePlatform(tmp_path, MODEL_HOSTS) as platform:
        eventually(lambda: host_is_there(platform))

        refused = upload(platform, "mine", b"this is no model")
        accepted = upload(platform, "mine", iris)

        assert (refused.status_code, accepted.status_code) == (422, 201)
        assert listed(platform) == ["mine.onnx"]


def test_two_gateways_on_one_folder_serve_the_same_uploads_with_workers_of_their_own(
    tmp_path: Path, iris: bytes
) -> None:
    first = OnlinePlatform(tmp_path / "first", MODEL_HOSTS)
    second = OnlinePlatform(tmp_path / "second", MODEL_HOSTS)
    second.data_dir = first.data_dir
    with first, second:
        eventually(lambda: host_is_there(first) and host_is_there(second))
        assert (first.data_dir / "workers-2.sock").is_socket()

        assert upload(first, "mine", iris).status_code == 201
        second.wait_workers("mine.onnx", 1)
        assert upload(second, "yours", iris).status_code == 201
        first.wait_workers("yours.onnx", 1)
        assert first.http.delete("/api/v1/models/mine.onnx").status_code == 200

        eventually(lambda: listed(second) == ["yours.onnx"])
        assert listed(first) == ["yours.onnx"]


def test_one_worker_serves_two_gateways(tmp_path: Path) -> None:
    far = {"echo": {"ENGINE": "echo", "HOST": "192.0.2.1"}}
    settings = {"worker_port": 0}
    first = OnlinePlatform(tmp_path / "first", far, waits_until_ready=False, **settings)
    second = OnlinePlatform(tmp_path / "second", far, waits_until_ready=False, **settings)
    with first, second:
        ports = (first.worker_port, second.worker_port)
        first.add_worker("echo", *(f"tcp://127.0.0.1:{port}" for port in ports))

        for platform in (first, second):
            platform.wait_workers("echo", 1)
            assert platform.http.post("/run", json={"SIGNATURE": "echo", "a": 1}).json()["a"] == 1


def ended(folder: Path, **settings: str) -> str:
    """What a gateway says that does not start."""
    environment = {
        **os.environ,
        "DATA_DIR": str(folder / "data"),
        "WORKER_TOKEN": "a-worker-token-for-tests",
        "PORT": "0",
        **settings,
    }
    command = [sys.executable, "-m", "online_gateway"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


BROKEN = """
from online_gateway.dataplane.plane import DataPlane
from online_gateway.main import main

DataPlane.sweep = lambda self: 1 / 0
main()
"""


def test_a_part_that_fails_ends_it_with_a_status_that_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "WORKER_TOKEN": "a-worker-token-for-tests", "PORT": "0"}

    done = subprocess.run(
        [sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert "background_task_failed" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_taken_worker_port_is_said_and_ends_it(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path / "other", {}, worker_port=free_port()) as other:
        message = ended(tmp_path, WORKER_PORT=str(other.worker_port))

    assert "address already in use" in message.lower()


def test_a_missing_file_of_endpoints_is_said_and_ends_it(tmp_path: Path) -> None:
    assert "nowhere.json cannot be read" in ended(tmp_path, ENDPOINTS_FILE=str(tmp_path / "nowhere.json"))


def test_a_folder_that_cannot_be_made_is_said_and_ends_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "file" in ended(tmp_path, DATA_DIR=str(tmp_path / "file" / "data"))


def test_a_folder_with_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100) / ("b" * 100)
    deep.mkdir(parents=True)

    with OnlinePlatform(deep, {"echo": {"ENGINE": "echo"}}) as platform:
        assert platform.http.post("/run", json={"SIGNATURE": "echo", "a": 1}).json()["a"] == 1
    shutil.rmtree(deep)

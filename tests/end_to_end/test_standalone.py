"""``infer up``, used with nothing but curl."""

import json
import os
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models_examples.build import example_folders
from models_examples.check import check_output
from tests.support.hostile_models import unzipped, zip_of
from tests.support.model_folders import make_sample
from tests.support.requirements import missing
from tests.support.standalone import INFER, InferUp
from tests.support.waiting import eventually

UPLOAD_LIMIT = 4_000_000


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, all_models_folder: Path) -> Iterator[InferUp]:
    if shutil.which("curl") is None:
        missing("curl is not installed")
    data = tmp_path_factory.mktemp("up")
    options = ("--examples", "--runner", "process", "--models", str(all_models_folder))
    with InferUp(data, *options, MAX_UPLOAD_BYTES=str(UPLOAD_LIMIT)) as running:
        yield running


class Answer:
    def __init__(self, status: int, body: bytes, headers: str) -> None:
        self.status = status
        self.body = body
        self.headers = headers.lower()

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


def curl(*arguments: str, folder: Path) -> Answer:
    body, headers = folder / "curl.body", folder / "curl.headers"
    command = ["curl", "-sS", "-m", "90", "-o", str(body), "-D", str(headers), "-w", "%{http_code}", *arguments]
    body.write_bytes(b"")
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return Answer(int(done.stdout), body.read_bytes(), headers.read_text())


def post(up: InferUp, model: str, sent: Path, folder: Path) -> Answer:
    return curl("-F", f"zip_file=@{sent}", f"{up.url}/api/tasks/?model_human_readable_id={model}", folder=folder)


def test_a_task_is_551_at_once_and_then_200_with_the_zip(up: InferUp, tmp_path: Path) -> None:
    folder = example_folders()["ct_body_mask"]
    sample = make_sample(folder, tmp_path / "sample.zip")

    posted = post(up, "ct-body-mask", sample, tmp_path)
    uid = json.loads(posted.body)
    first = curl(f"{up.url}/api/tasks/{uid}", folder=tmp_path)
    last = curl(f"{up.url}/api/tasks/{uid}?wait=60", folder=tmp_path)

    assert posted.status == 200
    assert first.status == 551
    assert last.status == 200
    assert f"content-length: {len(last.body)}" in last.headers
    assert "etag:" in last.headers
    (tmp_path / "out.zip").write_bytes(last.body)
    assert check_output(folder, sample, tmp_path / "out.zip") == []


def test_a_failing_model_is_552(up: InferUp, tmp_path: Path) -> None:
    uid = json.loads(post(up, "test-fails", zip_of(tmp_path / "in.zip", {"a": "b"}), tmp_path).body)

    answer = curl(f"{up.url}/api/tasks/{uid}?wait=60", folder=tmp_path)

    assert answer.status == 552
    assert "exit code 3" in answer.detail


def test_an_unknown_uid_is_554(up: InferUp, tmp_path: Path) -> None:
    assert curl(f"{up.url}/api/tasks/nobody-knows-this", folder=tmp_path).status == 554


def test_an_unknown_model_is_404(up: InferUp, tmp_path: Path) -> None:
    answer = post(up, "no-such-model", zip_of(tmp_path / "in.zip", {"a": "b"}), tmp_path)

    assert answer.status == 404
    assert "no-such-model" in answer.detail


def test_a_name_that_leaves_its_folder_is_422(up: InferUp, tmp_path: Path) -> None:
    answer = post(up, "pass-through", zip_of(tmp_path / "in.zip", {"../../x": "b"}), tmp_path)

    assert answer.status == 422
    assert "../../x" in answer.detail


def test_what_is_no_zip_is_415(up: InferUp, tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(b"this is no zip")

    assert post(up, "pass-through", tmp_path / "in.zip", tmp_path).status == 415


def test_an_upload_past_the_limit_is_413(up: InferUp, tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(os.urandom(UPLOAD_LIMIT + 1))

    answer = post(up, "pass-through", tmp_path / "in.zip", tmp_path)

    assert answer.status == 413
    assert str(UPLOAD_LIMIT) in answer.detail


def test_a_model_that_writes_nothing_is_200_with_an_empty_zip(up: InferUp, tmp_path: Path) -> None:
    uid = json.loads(post(up, "test-writes-nothing", zip_of(tmp_path / "in.zip", {"a": "b"}), tmp_path).body)

    answer = curl(f"{up.url}/api/tasks/{uid}?wait=60", folder=tmp_path)

    assert answer.status == 200
    (tmp_path / "out.zip").write_bytes(answer.body)
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == []


def test_models_may_be_posted_on_loopback_with_a_zip(up: InferUp, tmp_path: Path) -> None:
    weights = zip_of(tmp_path / "weights.zip", {"weights.txt": "the weights"})
    query = (
        "container_tag=inference-server-test/reads_model:1&human_readable_id=posted&model_available=True&use_gpu=False"
    )

    posted = curl("-F", f"zip_file=@{weights}", f"{up.url}/api/models/?{query}", folder=tmp_path)
    again = curl("-F", f"zip_file=@{weights}", f"{up.url}/api/models/?{query}", folder=tmp_path)
    uid = json.loads(post(up, "posted", zip_of(tmp_path / "in.zip", {"a": "b"}), tmp_path).body)
    answer = curl(f"{up.url}/api/tasks/{uid}?wait=60", folder=tmp_path)

    assert (posted.status, again.status) == (200, 409)
    assert json.loads(posted.body)["model_available"] is True
    assert answer.status == 200, answer.body
    (tmp_path / "out.zip").write_bytes(answer.body)
    assert b"the weights" in b"".join(unzipped(tmp_path / "out.zip").values())


def test_an_old_manuals_way_to_post_a_model_is_pointed_to_the_right_path(up: InferUp, tmp_path: Path) -> None:
    sent = zip_of(tmp_path / "in.zip", {"a": "b"})

    answer = curl(
        "-F", f"zip_file=@{sent}", f"{up.url}/api/tasks/?container_tag=x&human_readable_id=y", folder=tmp_path
    )

    assert answer.status == 422
    assert "/api/models/" in answer.detail


def test_a_part_of_the_output_can_be_fetched(up: InferUp, tmp_path: Path) -> None:
    uid = json.loads(post(up, "pass-through", zip_of(tmp_path / "in.zip", {"a": "b" * 1000}), tmp_path).body)
    whole = curl(f"{up.url}/api/tasks/{uid}?wait=60", folder=tmp_path)

    part = curl("-r", "10-19", f"{up.url}/api/tasks/{uid}", folder=tmp_path)

    assert part.status == 206
    assert part.body == whole.body[10:20]


def test_the_welcome_and_the_docs_need_no_other_host(up: InferUp, tmp_path: Path) -> None:
    welcome = curl(f"{up.url}/", folder=tmp_path)
    browser = curl("-H", "Accept: text/html", f"{up.url}/", folder=tmp_path)
    docs = curl(f"{up.url}/docs", folder=tmp_path)

    assert "message" in json.loads(welcome.body)
    assert browser.status in {302, 303, 307}
    assert docs.status == 200
    assert b"http://" not in docs.body
    assert b"https://" not in docs.body


def test_data_is_kept_for_the_next_start(tmp_path: Path, all_models_folder: Path) -> None:
    options = ("--runner", "process", "--models", str(all_models_folder), "--examples")
    with InferUp(tmp_path / "data", *options) as first:
        sent = zip_of(tmp_path / "in.zip", {"a": "b"})
        uid = json.loads(post(first, "pass-through", sent, tmp_path).body)
        curl(f"{first.url}/api/tasks/{uid}?wait=60", folder=tmp_path)
        assert first.interrupt() == 0

    with InferUp(tmp_path / "data", *options) as second:
        again = curl(f"{second.url}/api/tasks/{uid}", folder=tmp_path)

    assert again.status == 200
    assert any("registered before" in line for line in second.lines)


def test_a_child_that_is_killed_comes_back(tmp_path: Path, all_models_folder: Path) -> None:
    with InferUp(tmp_path / "data", "--runner", "process", "--models", str(all_models_folder), "--examples") as up:
        children = psutil.Process(up.process.pid).children()
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        psutil.wait_procs(children, timeout=60)

        def ready() -> bool:
            return curl("--retry", "3", f"{up.url}/health/ready", folder=tmp_path).status == 200

        eventually(ready, 60)
        uid = json.loads(post(up, "pass-through", zip_of(tmp_path / "in.zip", {"a": "b"}), tmp_path).body)
        assert curl(f"{up.url}/api/tasks/{uid}?wait=60", folder=tmp_path).status == 200


def test_nothing_runs_on_after_the_command_was_killed(tmp_path: Path, all_models_folder: Path) -> None:
    with InferUp(tmp_path / "data", "--runner", "process", "--models", str(all_models_folder)) as up:
        children = psutil.Process(up.process.pid).children(recursive=True)

        up.process.kill()
        up.process.wait(60)

        assert children
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []


def test_an_unknown_log_level_is_said_in_one_line(tmp_path: Path) -> None:
    command = [INFER, "up", "--data", str(tmp_path), "--port", "0", "--online-port", "0"]

    ended = subprocess.run([*command, "--log-level", "loud"], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 2
    assert "'--log-level': 'loud'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = subprocess.run(
            [INFER, "up", "--data", str(tmp_path / "data"), "--port", str(port), "--runner", "process"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr


def test_a_second_one_on_the_same_data_stops_with_a_sentence(tmp_path: Path, all_models_folder: Path) -> None:
    options = ["--runner", "process", "--models", str(all_models_folder)]
    with InferUp(tmp_path / "data", *options):
        done = subprocess.run(
            [INFER, "up", "--data", str(tmp_path / "data"), "--port", "0", "--online-port", "0", *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "data") in done.stderr

"""A zip over HTTP becomes a model's output: every model of the repository, on both shapes of the platform."""

import json
import threading
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from contracts.models import RequestedLimits
from contracts.task_state import TaskState
from contracts.tasks import LOG_TAIL_BYTES, TaskStatus
from inference_client import TaskCancelled, TaskFailed
from models_examples.build import example_folders
from models_examples.check import check_output
from tests.end_to_end.conftest import Shape
from tests.support.hostile_models import tag_of, unzipped, zip_of
from tests.support.model_folders import make_sample
from tests.support.waiting import eventually

RUN_SECONDS = 120
NESTED = {
    "top.txt": b"top",
    "a/b/c/deep.bin": bytes(range(256)) * 100,
    "a/empty/": b"",
    "also empty/": b"",
    "späce and ünicode/名前.txt": "ü".encode(),
}


def run(shape: Shape, model: str, input_zip: Path, output: Path) -> TaskStatus:
    uid = shape.client.submit(model, input_zip)
    status = shape.client.wait(uid, RUN_SECONDS)
    shape.client.download(uid, output)
    return status


def failure_of(shape: Shape, model: str, tmp_path: Path) -> tuple[TaskStatus, str]:
    uid = shape.client.submit(model, zip_of(tmp_path / "in.zip", {"file": "content"}))
    with pytest.raises(TaskFailed):
        shape.client.wait(uid, RUN_SECONDS)
    assert httpx.get(f"{shape.platform.url}/api/tasks/{uid}").status_code == 552
    return shape.client.status(uid), shape.client.logs(uid)


@pytest.mark.parametrize("name", sorted(example_folders()))
def test_each_example_gives_its_expected_output(shape: Shape, name: str, tmp_path: Path) -> None:
    folder = example_folders()[name]
    sample = make_sample(folder, tmp_path / "sample.zip")

    run(shape, name.replace("_", "-"), sample, tmp_path / "output.zip")

    assert check_output(folder, sample, tmp_path / "output.zip") == []


def test_names_bytes_and_empty_folders_come_back_unchanged(shape: Shape, tmp_path: Path) -> None:
    sent = zip_of(tmp_path / "in.zip", NESTED)

    run(shape, "test-echo-tree", sent, tmp_path / "out.zip")

    came = unzipped(tmp_path / "out.zip")
    assert {name: content for name, content in came.items() if not name.endswith("/")} == {
        name: content for name, content in NESTED.items() if not name.endswith("/")
    }
    assert {"a/empty/", "also empty/"} <= set(came)


def test_a_model_that_writes_nothing_gives_an_empty_zip(shape: Shape, tmp_path: Path) -> None:
    run(shape, "test-writes-nothing", zip_of(tmp_path / "in.zip", {"file": "content"}), tmp_path / "out.zip")

    assert unzipped(tmp_path / "out.zip") == {}


def test_a_failing_model_keeps_its_exit_code_and_log(shape: Shape, tmp_path: Path) -> None:
    status, log = failure_of(shape, "test-fails", tmp_path)

    assert (status.state, status.exit_code, status.attempt) == (TaskState.FAILED, 3, 1)
    assert "exit code 3" in (status.error or "")
    assert "the weights are broken" in log


def test_a_model_that_eats_memory_is_stopped_and_said_so(shape: Shape, tmp_path: Path) -> None:
    status, _ = failure_of(shape, "test-eats-memory", tmp_path)

    assert "memory" in (status.error or "")
    assert status.attempt == 1


def test_a_model_that_sleeps_too_long_is_stopped_and_said_so(shape: Shape, tmp_path: Path) -> None:
    limits = RequestedLimits(timeout_seconds=2)
    shape.client.add_model("sleeps-2s", tag_of("sleeps"), limits=limits)

    status, log = failure_of(shape, "sleeps-2s", tmp_path)

    assert "did not end within 2 s" in (status.error or "")
    assert "asleep" in log


def test_a_hundred_megabytes_of_log_keep_their_end(shape: Shape, tmp_path: Path) -> None:
    uid = shape.client.submit("test-prints-100-mb-of-log", zip_of(tmp_path / "in.zip", {"file": "content"}))

    shape.client.wait(uid, RUN_SECONDS)

    log = shape.client.logs(uid)
    assert 0 < len(log.encode()) <= LOG_TAIL_BYTES
    assert log.rstrip().endswith("the last line")


def test_a_model_reaches_no_network(shape: Shape, tmp_path: Path) -> None:
    targets = f"127.0.0.1:{shape.platform.public_port} 127.0.0.1:{shape.platform.private_port}"

    run(shape, "test-tries-network", zip_of(tmp_path / "in.zip", {"targets.txt": targets}), tmp_path / "out.zip")

    report = json.loads(unzipped(tmp_path / "out.zip")["report.json"])
    assert report["reached"] == []
    assert set(targets.split()) <= set(report["not_reached"])


def test_a_model_cannot_write_to_its_model_folder(shape: Shape, tmp_path: Path) -> None:
    weights = zip_of(tmp_path / "weights.zip", {"weights.txt": "the weights"})
    shape.client.add_model("writes-to-weights", tag_of("writes_to_model"), content=weights)

    run(shape, "writes-to-weights", zip_of(tmp_path / "in.zip", {"file": "content"}), tmp_path / "out.zip")

    report = unzipped(tmp_path / "out.zip")["report.txt"].decode()
    assert report.split() == [
        "create:",
        "refused",
        "append:",
        "refused",
        "remove:",
        "refused",
        "rename:",
        "refused",
        "remount:",
        "refused",
    ]


def test_links_in_the_output_are_left_out_and_named(shape: Shape, tmp_path: Path) -> None:
    uid = shape.client.submit("test-leaves-links", zip_of(tmp_path / "in.zip", {"file": "content"}))
    shape.client.wait(uid, RUN_SECONDS)
    shape.client.download(uid, tmp_path / "out.zip")

    assert not any(b"root:" in content for content in unzipped(tmp_path / "out.zip").values())
    assert "left out of the output" in shape.client.logs(uid)


def test_the_uid_is_known_from_the_moment_that_it_is_handed_out(shape: Shape, tmp_path: Path) -> None:
    sent = zip_of(tmp_path / "in.zip", {"file": "content"})
    codes: list[int] = []

    def post_and_poll() -> None:
        with httpx.Client(base_url=shape.platform.url, timeout=30) as http, sent.open("rb") as body:
            uid = http.post(
                "/api/tasks/", params={"model_human_readable_id": "pass-through"}, files={"zip_file": body}
            ).json()
            codes.append(http.get(f"/api/tasks/{uid}").status_code)

    posters = [threading.Thread(target=post_and_poll) for _ in range(30)]
    for poster in posters:
        poster.start()
    for poster in posters:
        poster.join()

    assert len(codes) == 30
    assert set(codes) <= {551, 200}


def test_a_running_task_can_be_cancelled(shape: Shape, tmp_path: Path) -> None:
    uid = shape.client.submit("test-sleeps", zip_of(tmp_path / "in.zip", {"file": "content"}))
    eventually(lambda: shape.client.state(uid) is TaskState.RUNNING, 60)

    shape.client.cancel(uid)

    with pytest.raises(TaskCancelled):
        shape.client.wait(uid, 60)
    assert httpx.get(f"{shape.platform.url}/api/tasks/{uid}").status_code == 552
    # The consumer hears of it with its next heartbeat and is free again.
    run(shape, "pass-through", zip_of(tmp_path / "next.zip", {"file": "content"}), tmp_path / "out.zip")


def test_a_deleted_task_is_unknown(shape: Shape, tmp_path: Path) -> None:
    uid = shape.client.submit("pass-through", zip_of(tmp_path / "in.zip", {"file": "content"}))
    shape.client.wait(uid, RUN_SECONDS)

    shape.client.delete(uid)

    assert httpx.get(f"{shape.platform.url}/api/tasks/{uid}").status_code == 554


def test_waiting_answers_as_soon_as_the_task_is_over(shape: Shape, tmp_path: Path) -> None:
    sent = zip_of(tmp_path / "in.zip", {"file": "content"})
    uid = shape.client.submit("pass-through", sent)

    began = time.monotonic()
    answer = httpx.get(f"{shape.platform.url}/api/tasks/{uid}", params={"wait": 50}, timeout=60)

    assert answer.status_code == 200
    assert time.monotonic() - began < 45
    with zipfile.ZipFile(tmp_path / "in.zip") as archive:
        assert archive.namelist() == ["file"]


def test_a_task_that_no_registered_image_can_serve_says_so(shape: Shape, tmp_path: Path) -> None:
    shape.client.add_model("no-such-image", "127.0.0.1:9/never-built:1")

    status, _ = failure_of(shape, "no-such-image", tmp_path)

    assert "127.0.0.1:9/never-built:1" in (status.error or "")
    assert status.attempt == 1

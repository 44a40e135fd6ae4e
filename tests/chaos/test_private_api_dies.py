"""private_api is killed or away: no uid that was handed out is lost, no result either, nobody hangs."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from contracts.task_state import TaskState
from contracts.tasks import Step
from inference_client import InferenceClient
from tests.support.hostile_models import tag_of, unzipped, zip_of
from tests.support.platform import Platform, Service
from tests.support.waiting import eventually


@pytest.fixture
def start(polled: Platform, all_models_folder: Path) -> Callable[[], Service]:
    return lambda: polled.start_consumer("process", MODELS_FOLDER=str(all_models_folder))


def test_a_uid_survives_a_kill_right_after_it_was_handed_out(
    polled: Platform, client: InferenceClient, start: Callable[[], Service], input_zip: Path, tmp_path: Path
) -> None:
    for _ in range(5):
        uid = client.submit("echo_tree", input_zip)
        polled.private.kill()
        polled.private.restart()
        polled.wait_ready()
        assert client.state(uid) is TaskState.PENDING

    start()
    client.wait(uid, 60)
    client.download(uid, tmp_path / "out.zip")

    assert unzipped(tmp_path / "out.zip") == {"file": b"content"}


def test_a_result_reaches_a_private_api_that_died_during_the_run(
    polled: Platform, client: InferenceClient, start: Callable[[], Service], tmp_path: Path
) -> None:
    client.add_model("takes_its_time", tag_of("takes_its_time"))
    consumer = start()
    uid = client.submit("takes_its_time", zip_of(tmp_path / "in.zip", {"seconds": "2"}))
    eventually(lambda: client.status(uid).step is Step.RUN, 60)
    program = eventually(lambda: psutil.Process(consumer.process.pid).children(recursive=True))[0]  # after its step

    polled.private.kill()
    gone, _ = psutil.wait_procs([program], timeout=60)
    assert gone
    polled.private.restart()
    polled.wait_ready()

    assert client.wait(uid, 60).attempt == 1
    client.download(uid, tmp_path / "out.zip")
    assert unzipped(tmp_path / "out.zip") == {"seconds": b"2"}


def test_while_it_is_away_every_route_answers_503_with_retry_after(
    polled: Platform, client: InferenceClient, input_zip: Path
) -> None:
    uid = client.submit("echo_tree", input_zip)
    polled.private.kill()

    with httpx.Client(base_url=polled.url, timeout=60) as http, input_zip.open("rb") as body:
        answers = [
            http.get(f"/api/tasks/{uid}"),
            http.get(f"/api/tasks/{uid}", params={"wait": 5}),
            http.get(f"/api/tasks/{uid}/status"),
            http.get("/api/models/"),
            http.post("/api/tasks/", params={"model_human_readable_id": "echo_tree"}, files={"zip_file": body}),
            http.delete(f"/api/tasks/{uid}"),
        ]

    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    assert all(json.loads(answer.content)["detail"] for answer in answers)
    polled.private.restart()
    polled.wait_ready()
    assert client.state(uid) is TaskState.PENDING

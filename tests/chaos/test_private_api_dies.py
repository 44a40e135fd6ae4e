"""private_api is killed or away: no uid that was handed out is lost, no result either, nobody hangs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from contracts.task_state import TaskState
from contracts.tasks import Step
from inference_client import InferenceClient
from tests.support.hostile_models import unzipped
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
    polled: Platform, client: InferenceClient, start: Callable[[], Service], tmp_path: Path, all_models_folder: Path
) -> None:
    model = tmp_path / "models" / "waits_for_file"
    model.mkdir(parents=True)
    (model / "model.toml").write_text(
        'human_readable_id = "waits"\ncontainer_tag = "test/waits:1"\ncommand = ["sh", "run.sh"]\n'
    )
    (model / "run.sh").write_text("sleep 3; echo done > ${OUTPUT_DIR:-/output}/done.txt\n")
    client.add_model("waits", "test/waits:1")
    polled.start_consumer("process", MODELS_FOLDER=str(tmp_path / "models"))
    uid = client.submit("waits", _zip(tmp_path))
    eventually(lambda: client.status(uid).step is Step.RUN, 30)

    polled.private.kill()
    subprocess.run([sys.executable, "-c", "import time; time.sleep(4)"], check=True)  # the model ends meanwhile
    polled.private.restart()
    polled.wait_ready()

    status = client.wait(uid, 60)
    assert status.attempt == 1
    client.download(uid, tmp_path / "out.zip")
    assert unzipped(tmp_path / "out.zip") == {"done.txt": b"done\n"}


def test_while_it_is_away_every_route_answers_503_with_retry_after(
    polled: Platform, client: InferenceClient, input_zip: Path
) -> None:
    uid = client.submit("echo_tree", input_zip)
    polled.private.kill()

    with httpx.Client(base_url=polled.url, timeout=20) as http, input_zip.open("rb") as body:
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


def _zip(folder: Path) -> Path:
    from tests.support.hostile_models import zip_of

    return zip_of(folder / "waits.zip", {"file": "content"})

"""Several consumers of one host share a scratch folder, as ``docker compose up --scale job-consumer=3`` makes them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inference_client import InferenceClient
from tests.chaos.test_consumer_dies import SOON, is_running
from tests.support.hostile_models import unzipped, zip_of
from tests.support.platform import Platform, Service
from tests.support.waiting import eventually

CONSUMERS = 3
TASKS = 12


@pytest.fixture(params=["process", "docker"])
def start(
    request: pytest.FixtureRequest, polled: Platform, all_models_folder: Path, shared: Path
) -> Callable[[], Service]:
    if request.param == "docker":
        for name in ("sleeps", "echo_tree"):
            request.getfixturevalue("hostile_image")(name)
    return lambda: polled.start_consumer(request.param, MODELS_FOLDER=str(all_models_folder), SCRATCH_DIR=str(shared))


@pytest.fixture
def shared(polled: Platform) -> Path:
    return polled.folder / "shared-scratch"


def inputs_of_runs(shared: Path) -> set[Path]:
    """The input files of runs, of whichever consumer and runner."""
    return set(shared.glob("*/*/input/file"))


def test_the_living_sweep_what_the_dead_one_left_and_nothing_of_each_other(
    client: InferenceClient, start: Callable[[], Service], input_zip: Path, shared: Path
) -> None:
    consumers = [start() for _ in range(CONSUMERS)]
    sleepers = [client.submit("sleeps", input_zip) for _ in consumers]
    eventually(lambda: all(is_running(client, uid) for uid in sleepers), SOON)
    before = inputs_of_runs(shared)
    assert len(before) == CONSUMERS

    consumers[0].kill()
    eventually(lambda: any("leftover_removed" in one.log for one in consumers[1:]), SOON)

    assert len(inputs_of_runs(shared) & before) == CONSUMERS - 1
    assert sum(is_running(client, uid) for uid in sleepers) == CONSUMERS - 1, (
        "the living run on, in their first attempt"
    )
    for uid in sleepers:
        client.cancel(uid)


def test_tasks_at_once_get_their_own_files_back_and_nothing_is_left(
    client: InferenceClient, start: Callable[[], Service], tmp_path: Path, shared: Path
) -> None:
    consumers = [start() for _ in range(CONSUMERS)]
    sent = {
        client.submit(
            "echo_tree", zip_of(tmp_path / f"{number}.zip", {"file": f"content {number}"})
        ): f"content {number}"
        for number in range(TASKS)
    }

    got = {}
    for uid in sent:
        client.wait(uid, 60)
        client.download(uid, tmp_path / "output.zip")
        got[uid] = unzipped(tmp_path / "output.zip")["file"].decode()
        (tmp_path / "output.zip").unlink()
    eventually(lambda: not inputs_of_runs(shared), SOON)  # cleared after the result is told
    for consumer in consumers:
        assert consumer.stop() == 0

    assert got == sent
    assert sum("attempt_ended" in consumer.log for consumer in consumers) > 1, "the work was shared"
    assert [path for path in shared.rglob("*") if path.is_file()] == []

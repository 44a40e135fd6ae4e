"""A consumer is killed, frozen or stopped in mid-task: the task ends elsewhere, once, and nothing is left behind."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from contracts import routes
from contracts.task_state import TaskState
from contracts.tasks import FinishReport, Outcome, Step
from inference_client import InferenceClient, TaskFailed
from tests.chaos.conftest import Engine
from tests.support.platform import LEASE_SECONDS, Platform, Service
from tests.support.waiting import eventually

RECOVERY_SECONDS = LEASE_SECONDS + 5
"""From a consumer's death to the next one's claim, at most."""
SOON = 60
"""Enough for any machine, in seconds, where how long it takes is not the question."""


@pytest.fixture(params=["process", "docker"])
def runner(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        for name in ("sleeps", "echo_tree"):
            request.getfixturevalue("hostile_image")(name)
    return str(request.param)


@pytest.fixture
def start(polled: Platform, runner: str, all_models_folder: Path) -> Callable[[], Service]:
    return lambda: polled.start_consumer(runner, MODELS_FOLDER=str(all_models_folder))


def is_running(client: InferenceClient, uid: str, attempt: int = 1) -> bool:
    status = client.status(uid)
    return (status.state, status.step, status.attempt) == (TaskState.RUNNING, Step.RUN, attempt)


def sleepers() -> set[int]:
    """The processes of the model that sleeps, of this test and of others."""
    return {p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "3600"]}


def test_a_killed_consumers_task_goes_to_another_within_the_lease_and_five_seconds(
    polled: Platform, client: InferenceClient, start: Callable[[], Service], input_zip: Path, runner: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    first = start()
    uid = client.submit("sleeps", input_zip)
    eventually(lambda: is_running(client, uid), SOON)
    first_consumer = next(line for line in first.log.splitlines() if "consumer_ready" in line).split('"consumer": "')[1]
    first_consumer = first_consumer.split('"')[0]
    start()

    died = datetime.now(UTC)
    first.kill()

    eventually(lambda: is_running(client, uid, attempt=2), SOON)
    claimed = client.status(uid).attempts[1].started_at
    assert (claimed - died).total_seconds() <= RECOVERY_SECONDS
    # A result of the first attempt, come too late, is refused and counted.
    report = FinishReport(consumer=first_consumer, outcome=Outcome.MODEL_FAILED, reason="late")
    late = polled.internal("POST", routes.FINISH.format(uid=uid, attempt=1), json=report.model_dump(mode="json"))
    assert late.status_code == 409
    assert client.status(uid).state is TaskState.RUNNING
    assert client.status(uid).attempts[0].refused_writes == 1
    assert client.status(uid).attempts[0].outcome == "lease_lapsed"
    if runner == "docker":
        engine: Engine = request.getfixturevalue("engine_of")(polled)
        eventually(lambda: len(engine.containers()) == 1, SOON)
    client.cancel(uid)
    if runner == "docker":
        eventually(lambda: engine.containers() == [] and engine.volumes() == [], SOON)


def test_a_frozen_consumer_that_wakes_up_writes_nothing(
    polled: Platform, client: InferenceClient, start: Callable[[], Service], input_zip: Path
) -> None:
    first = start()
    uid = client.submit("sleeps", input_zip)
    eventually(lambda: is_running(client, uid), SOON)
    start()

    first.signal(signal.SIGSTOP)
    eventually(lambda: is_running(client, uid, attempt=2), SOON)
    first.signal(signal.SIGCONT)

    eventually(lambda: client.status(uid).attempts[0].refused_writes > 0, SOON)
    eventually(lambda: not any(path.name == "file" for path in polled.folder.glob("scratch-0/**/*")), SOON)
    assert client.status(uid).state is TaskState.RUNNING
    assert client.status(uid).attempt == 2
    client.cancel(uid)


def test_a_stopped_consumer_hands_its_task_back_and_the_attempt_is_not_counted(
    client: InferenceClient, start: Callable[[], Service], input_zip: Path
) -> None:
    first = start()
    uid = client.submit("sleeps", input_zip)
    eventually(lambda: is_running(client, uid), SOON)
    start()

    assert first.stop() == 0

    eventually(lambda: is_running(client, uid, attempt=2), SOON)
    assert client.status(uid).attempts[0].outcome == Outcome.HANDED_BACK
    client.cancel(uid)


def test_a_task_that_loses_every_consumer_fails_and_says_so(
    polled: Platform, client: InferenceClient, start: Callable[[], Service], input_zip: Path, runner: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    uid = client.submit("sleeps", input_zip)
    for attempt in (1, 2, 3):
        consumer = start()
        eventually(lambda number=attempt: is_running(client, uid, number), SOON)
        consumer.kill()

    eventually(lambda: client.state(uid) is TaskState.FAILED, SOON)
    with pytest.raises(TaskFailed):
        client.wait(uid, 5)
    status = client.status(uid)
    assert len(status.attempts) == 3
    assert "3" in (status.error or "")
    assert httpx.get(f"{polled.url}/api/tasks/{uid}").status_code == 552
    # What the dead ones left goes as soon as anybody is there to sweep.
    start()
    if runner == "docker":
        engine: Engine = request.getfixturevalue("engine_of")(polled)
        eventually(lambda: engine.containers() == [] and engine.volumes() == [], SOON)


def test_a_restarted_consumer_runs_nothing_twice_at_once(
    client: InferenceClient, start: Callable[[], Service], input_zip: Path
) -> None:
    before = sleepers()
    first = start()
    uid = client.submit("sleeps", input_zip)
    eventually(lambda: is_running(client, uid), SOON)
    first.kill()

    first.restart()

    eventually(lambda: is_running(client, uid, attempt=2), SOON)
    assert len(sleepers() - before) <= 2, "the first attempt's are gone before the second's begin"
    eventually(lambda: len(sleepers() - before) == 2, SOON)  # one program and its child, which begin after their step
    client.cancel(uid)
    eventually(lambda: sleepers() <= before, SOON)


def test_what_a_dead_consumer_left_on_disk_is_cleared(
    polled: Platform, client: InferenceClient, input_zip: Path, runner: str, all_models_folder: Path
) -> None:
    shared = polled.folder / "shared-scratch"
    environment = {"MODELS_FOLDER": str(all_models_folder), "SCRATCH_DIR": str(shared)}
    first = polled.start_consumer(runner, **environment)
    uid = client.submit("sleeps", input_zip)
    eventually(lambda: is_running(client, uid), SOON)
    first.kill()
    client.cancel(uid)

    second = polled.start_consumer(runner, **environment)
    eventually(lambda: "leftover_removed" in second.log, SOON)
    assert second.stop() == 0

    assert [path for path in shared.rglob("*") if path.is_file()] == []

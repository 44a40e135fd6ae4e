import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.models import BlobRef, Limits, ModelForRun
from contracts.tasks import Claim, Step
from job_consumer import alive, pulse
from job_consumer.attempt import Attempt
from job_consumer.pulse import Pulse
from tests.support.waiting import eventually

LIMITS = Limits(timeout_seconds=0.2, memory_bytes=2**26, cpus=1, pids=16, shm_bytes=0)


@pytest.fixture
def attempt() -> Attempt:
    model = ModelForRun(
        uid="m",
        human_readable_id="m",
        container_tag="m:1",
        use_gpu=False,
        input_mountpoint="/input",
        output_mountpoint="/output",
        model_mountpoint="/model",
        limits=LIMITS,
        content=None,
    )
    given = {"task_id": 1, "uid": "u" * 43, "attempt": 1, "input": BlobRef(sha256="0", size=0), "model": model}
    return Attempt(Claim.model_validate({**given, "lease_seconds": 30}), "me")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_TURN", timedelta(seconds=0.1))
    monkeypatch.setattr(pulse, "_OVERTIME", timedelta(seconds=0.1))


def steadily(look: Callable[[], str | None], within: float = 0.6) -> bool:
    """Whether there is no trouble for so long."""
    try:
        eventually(look, within=within)
    except AssertionError:
        return True
    return False


@pytest.mark.usefixtures("impatient")
def test_a_loop_that_does_not_come_round_is_stuck_until_it_does() -> None:
    watched = Pulse(threading.Event())

    stuck = eventually(watched.trouble)
    watched.turn()

    assert stuck == "the loop is stuck"
    assert watched.trouble() is None


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", [Step.STAGE, Step.COLLECT, Step.UPLOAD])
def test_bytes_may_take_as_long_as_they_take(attempt: Attempt, step: Step) -> None:
    watched = Pulse(threading.Event())

    with attempt.at(step):
        watched.works_on(attempt)

        assert steadily(watched.trouble)


@pytest.mark.usefixtures("impatient")
def test_a_model_that_runs_past_its_limit_is_watched_by_nobody(attempt: Attempt) -> None:
    watched = Pulse(threading.Event())

    with attempt.at(Step.RUN):
        watched.works_on(attempt)
        within_the_limit = watched.trouble()
        beyond = eventually(watched.trouble)

    assert within_the_limit is None
    assert "past its limit" in beyond
    assert watched.trouble() is None


def test_a_thread_that_died_is_missed() -> None:
    watched, gone = Pulse(threading.Event()), threading.Thread(target=lambda: None, name="leases")
    watched.needs("leases")

    gone.start()
    gone.join()

    assert watched.trouble() == "these threads have died: leases"


@pytest.mark.usefixtures("impatient")
def test_who_leaves_is_alive_until_it_has_left() -> None:
    stop = threading.Event()
    watched = Pulse(stop)
    watched.needs("leases")
    eventually(watched.trouble)

    stop.set()

    assert watched.trouble() is None


def test_no_sign_is_given_while_there_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "FRESH_SECONDS", 0.3)
    with Pulse(threading.Event(), tmp_path, timedelta(milliseconds=20)) as watched:
        well = steadily(lambda: alive.trouble(os.getpid(), tmp_path))
        watched.needs("leases")

        said = eventually(lambda: alive.trouble(os.getpid(), tmp_path))

    assert well
    assert "gave no sign of life" in said


def test_a_folder_that_comes_later_is_used_then(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with Pulse(threading.Event(), folder, timedelta(milliseconds=20)):
        before = alive.trouble(os.getpid(), folder)
        folder.mkdir()

        assert before is not None
        assert eventually(lambda: alive.trouble(os.getpid(), folder) is None)

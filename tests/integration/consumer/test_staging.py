"""The next task is staged while one runs, and nothing is reserved by it."""

import threading

import pytest

from contracts.errors import Unavailable
from contracts.tasks import Outcome
from job_consumer.attempt import Attempt
from job_consumer.outcome import StopReason
from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.staging import StagedAhead
from tests.integration.consumer.conftest import Rig
from tests.support.scripted_private_api import TaskState
from tests.support.waiting import eventually


def _ahead(rig: Rig) -> StagedAhead:
    return StagedAhead(rig.private_api, rig.executor)


def _staged(rig: Rig, uid: str = "a") -> bool:
    return bool(rig.runner.runs_of(uid))


def test_what_was_staged_is_run_without_being_fetched_again(rig: Rig) -> None:
    task = rig.script.task("a")
    ahead = _ahead(rig)
    eventually(lambda: _staged(rig))

    claim = ahead.claim()
    assert claim is not None
    attempt = Attempt(claim, "me")
    rig.executor.complete(rig.executor.run(attempt, ahead.take))

    assert task.report.outcome is Outcome.SUCCEEDED
    assert len(rig.runner.runs) == 1
    assert rig.script.calls.count("input") == 1


def test_a_staged_task_stays_free_for_others(rig: Rig) -> None:
    task = rig.script.task("a")
    ahead = _ahead(rig)
    eventually(lambda: _staged(rig))

    assert task.state is TaskState.PENDING
    rig.script.claim("a", "another")

    assert ahead.claim() is None
    assert rig.runner.runs[0].discards == 1


def test_a_task_that_appears_later_is_staged_too(rig: Rig) -> None:
    ahead = _ahead(rig)
    eventually(lambda: rig.script.calls.count("peek") >= 1)
    rig.script.mishaps["peek"] = [Unavailable("away")]

    rig.script.task("a")

    eventually(lambda: _staged(rig))
    ahead.throw_away()


def test_an_attempt_of_another_number_is_staged_anew(rig: Rig) -> None:
    task = rig.script.task("a")
    ahead = _ahead(rig)
    eventually(lambda: _staged(rig))
    task.attempt = 4

    claim = ahead.claim()
    assert claim is not None
    rig.executor.complete(rig.executor.run(Attempt(claim, "me"), ahead.take))

    assert [run.assignment.attempt for run in rig.runner.runs] == [1, 5]
    assert task.report.outcome is Outcome.SUCCEEDED


def test_nothing_is_claimed_when_nothing_was_staged(rig: Rig) -> None:
    ahead = _ahead(rig)

    assert ahead.claim() is None
    assert "claim" not in rig.script.calls


@pytest.mark.parametrize("error", [RunnerError("no engine"), ModelRefused("no image"), OSError(28, "full")])
def test_a_task_that_could_not_be_staged_is_left_to_the_inbox(rig: Rig, error: Exception) -> None:
    task = rig.script.task("a")
    rig.runner.act("a").prepare_error = error
    ahead = _ahead(rig)
    eventually(lambda: rig.runner.prepares == 1)

    assert ahead.claim() is None
    assert (task.attempt, task.state) == (0, TaskState.PENDING)


def test_a_claim_that_cannot_be_made_now_drops_what_was_staged(rig: Rig) -> None:
    task = rig.script.task("a")
    ahead = _ahead(rig)
    eventually(lambda: _staged(rig))
    rig.script.mishaps["claim"] = [Unavailable("away")]

    assert ahead.claim() is None
    assert task.state is TaskState.PENDING


def test_a_slow_staging_goes_on_after_the_claim_while_the_lease_is_kept(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.script.hold_inputs = True
    ahead = _ahead(rig)
    eventually(lambda: "input" in rig.script.calls)

    claim = ahead.claim()
    assert claim is not None
    attempt = Attempt(claim, "me")
    rig.leases.keep(attempt)
    work = threading.Thread(target=lambda: rig.executor.complete(rig.executor.run(attempt, ahead.take)))
    work.start()
    eventually(lambda: len(task.beats) >= 3)
    rig.script.hold_inputs = False
    work.join(60)

    assert task.report.outcome is Outcome.SUCCEEDED
    assert rig.script.calls.count("input") == 1


def test_a_slow_staging_is_broken_off_when_its_attempt_is_told_to_stop(rig: Rig) -> None:
    task = rig.script.task("a", content=bytes(2**20))
    rig.script.mishaps["input"] = [Unavailable("away")] * 1000
    ahead = _ahead(rig)
    eventually(lambda: "input" in rig.script.calls)

    claim = ahead.claim()
    assert claim is not None
    attempt = Attempt(claim, "me")
    work = threading.Thread(target=lambda: rig.executor.complete(rig.executor.run(attempt, ahead.take)))
    work.start()
    attempt.stop(StopReason.CANCELLED)
    work.join(60)

    assert not work.is_alive()
    assert task.report.outcome is Outcome.CANCELLED


def test_throwing_away_does_not_wait_for_a_private_api_that_is_away(rig: Rig) -> None:
    rig.script.task("a")
    rig.script.mishaps["input"] = [Unavailable("away")] * 1000
    ahead = _ahead(rig)
    eventually(lambda: "input" in rig.script.calls)

    dropping = threading.Thread(target=ahead.throw_away)
    dropping.start()
    dropping.join(60)

    assert not dropping.is_alive()
    assert rig.runner.runs == []

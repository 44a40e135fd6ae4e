import threading
import time

import pytest

from contracts.errors import StaleAttempt, Unavailable
from contracts.tasks import Outcome, Step
from job_consumer.attempt import Attempt
from job_consumer.outcome import StopReason
from tests.integration.consumer.conftest import LEASE, Rig
from tests.support.waiting import eventually


def _work(rig: Rig, attempt: Attempt) -> threading.Thread:
    thread = threading.Thread(target=lambda: rig.executor.complete(rig.executor.run(attempt, lambda _: None)))
    thread.start()
    return thread


def test_the_lease_is_kept_while_it_stages_runs_and_uploads(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")
    rig.script.hold_inputs = True
    rig.script.mishaps["output"] = [Unavailable("away")] * 1000

    work = _work(rig, rig.attempt("a"))
    eventually(lambda: Step.STAGE in task.beats)
    rig.script.hold_inputs = False
    eventually(lambda: Step.RUN in task.beats)
    act.gate.set()
    eventually(lambda: Step.UPLOAD in task.beats)
    rig.script.mishaps["output"] = []
    work.join(60)

    assert task.report.outcome is Outcome.SUCCEEDED


def test_after_the_report_no_heartbeat_is_sent(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.work_on("a")
    beats, other = len(task.beats), rig.script.task("b")
    held = rig.runner.held("b")

    work = _work(rig, rig.attempt("b"))
    eventually(lambda: len(other.beats) >= 2)
    held.gate.set()
    work.join(60)

    assert len(task.beats) == beats


def test_a_cancel_stops_the_model_and_is_reported(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")

    work = _work(rig, rig.attempt("a"))
    act.started.wait(60)
    task.cancel = True
    work.join(60)

    assert task.report.outcome is Outcome.CANCELLED
    assert task.report.exit_code is None
    assert task.report.log_tail == "killed\n"


def test_a_stale_answer_stops_the_model_and_nothing_is_written(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")
    attempt = rig.attempt("a")

    work = _work(rig, attempt)
    act.started.wait(60)
    task.attempt += 1
    work.join(60)

    assert attempt.stop_reason is StopReason.LOST
    assert (task.outputs, task.reports, rig.script.calls.count("finish")) == ([], [], 0)


def test_private_api_being_away_for_longer_than_the_lease_does_not_stop_the_model(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")
    attempt = rig.attempt("a")

    work = _work(rig, attempt)
    act.started.wait(60)
    rig.script.away = True
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 2 * LEASE.total_seconds())
    assert not attempt.stopped.is_set()
    rig.script.away = False
    act.gate.set()
    work.join(60)

    assert task.report.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("first", [StopReason.CANCELLED, StopReason.DRAINED])
def test_a_lost_lease_outweighs_an_earlier_stop_and_nothing_outweighs_it(rig: Rig, first: StopReason) -> None:
    rig.script.task("a")
    attempt = Attempt(rig.script.claim("a"), "me")

    attempt.stop(first)
    attempt.stop(StopReason.CANCELLED)
    assert attempt.stop_reason is first
    attempt.stop(StopReason.LOST)
    attempt.stop(StopReason.DRAINED)

    assert attempt.stop_reason is StopReason.LOST


def test_a_heartbeat_that_crosses_the_report_is_no_lost_lease(rig: Rig) -> None:
    rig.script.task("a")
    attempt = rig.attempt("a")
    attempt.over.set()
    rig.script.mishaps["heartbeat"] = [StaleAttempt("it is over")]

    eventually(lambda: "heartbeat" in rig.script.calls)
    rig.leases.release(attempt)

    assert not attempt.stopped.is_set()

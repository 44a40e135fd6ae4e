"""The loop: one model at a time, and never a claimed task that nobody speaks for."""

import threading
import time
from datetime import timedelta

import pytest

from contracts.errors import ClaimRefused, NotFound, Unavailable
from contracts.task_state import TaskState
from contracts.tasks import Outcome
from job_consumer.runner.base import RunnerError, RunResult
from tests.integration.consumer.conftest import Rig
from tests.support.scripted_private_api import Task
from tests.support.waiting import eventually


def _ended(*tasks: Task) -> bool:
    return all(task.state.is_final for task in tasks)


def test_tasks_are_run_one_after_the_other_and_never_two_at_once(rig: Rig) -> None:
    tasks = [rig.script.task(f"t{number}", str(number).encode()) for number in range(8)]

    with rig.consuming():
        eventually(lambda: _ended(*tasks), within=20)

    assert [task.report.outcome for task in tasks] == [Outcome.SUCCEEDED] * 8
    assert [task.outputs[0] for task in tasks] == [f"output of t{n}: {n}".encode() for n in range(8)]
    assert rig.runner.most_executing == 1


def test_a_busy_consumer_claims_nothing_and_takes_no_offer(rig: Rig) -> None:
    first, second = rig.script.task("a"), rig.script.task("b")
    act = rig.runner.held("a")

    with rig.consuming():
        act.started.wait(60)
        eventually(lambda: rig.runner.runs_of("b"))

        assert second.state is TaskState.PENDING
        assert [uid for _, uid in rig.inbox.fates] == ["a", "a"]
        act.gate.set()
        eventually(lambda: _ended(first, second))

    assert [uid for _, uid in rig.inbox.fates] == ["a", "a"], "the second came by staging"
    assert rig.script.calls.count("input") == 2


def test_the_offer_is_settled_at_the_claim_and_not_at_the_end(rig: Rig) -> None:
    rig.script.task("a")
    act = rig.runner.held("a")

    with rig.consuming():
        act.started.wait(60)

        assert rig.inbox.fates == [("offered", "a"), ("settled", "a")]


@pytest.mark.parametrize("error", [ClaimRefused("another has it"), NotFound("deleted")])
def test_a_refused_claim_settles_the_offer_for_good(rig: Rig, error: ClaimRefused | NotFound) -> None:
    task = rig.script.task("a")
    rig.script.mishaps["claim"] = [error]

    with rig.consuming():
        eventually(lambda: _ended(task))

    assert rig.inbox.fates[:2] == [("offered", "a"), ("settled", "a")]


def test_an_offer_is_given_back_while_no_claim_can_be_made(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.script.mishaps["claim"] = [Unavailable("away")]

    with rig.consuming():
        eventually(lambda: _ended(task))

    assert rig.inbox.fates == [("offered", "a"), ("given back", "a"), ("offered", "a"), ("settled", "a")]


def test_a_host_that_is_not_fit_takes_no_task(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.runner.trouble = RunnerError("the engine is away")

    with rig.consuming():
        eventually(lambda: rig.runner.checks >= 2)
        assert (rig.inbox.fates, task.attempt) == ([], 0)
        rig.runner.trouble = None
        eventually(lambda: _ended(task))


def test_a_host_that_falls_sick_claims_nothing_that_it_staged_and_pauses(rig: Rig) -> None:
    first, second = rig.script.task("a"), rig.script.task("b")
    act = rig.runner.held("a")
    act.execute_error = RunnerError("the engine went away")

    with rig.consuming():
        act.started.wait(60)
        eventually(lambda: rig.runner.runs_of("b"))
        rig.runner.trouble = RunnerError("the engine is away")
        act.gate.set()
        eventually(lambda: first.reports)
        eventually(lambda: rig.runner.runs_of("b")[0].discards)

        assert (second.attempt, second.state) == (0, TaskState.PENDING)

    assert first.report.outcome is Outcome.PLATFORM_FAILED


def test_failures_of_ours_slow_the_claims_down(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.runner.act("a").execute_error = RunnerError("broken")

    with rig.consuming():
        eventually(lambda: len(task.reports) >= 3, within=20)
        began = time.monotonic()
        seen = len(task.reports)
        eventually(lambda: len(task.reports) > seen, within=20)

    assert time.monotonic() - began > 0.5
    assert {report.outcome for report in task.reports} == {Outcome.PLATFORM_FAILED}


def test_a_failing_model_does_not_slow_others_down(rig: Rig) -> None:
    tasks = [rig.script.task(f"t{number}") for number in range(10)]
    for task in tasks:
        rig.runner.act(task.uid).result = RunResult(exit_code=1, log_tail="")

    began = time.monotonic()
    with rig.consuming():
        eventually(lambda: _ended(*tasks))

    assert time.monotonic() - began < 20


def test_no_unforeseen_error_ends_the_loop_or_leaves_a_task_unreported(rig: Rig) -> None:
    bad, worse, good = rig.script.task("bad"), rig.script.task("worse"), rig.script.task("good")
    bad.max_attempts = worse.max_attempts = 1
    rig.runner.act("bad").execute_error = ZeroDivisionError("surprise")
    rig.runner.act("worse").collect_error = MemoryError("surprise")

    with rig.consuming():
        eventually(lambda: _ended(bad, worse, good))

    assert bad.report.outcome is worse.report.outcome is Outcome.PLATFORM_FAILED
    assert "ZeroDivisionError" in (bad.report.reason or "")


def test_a_completion_that_crashes_does_not_end_the_loop(rig: Rig) -> None:
    first, second = rig.script.task("a"), rig.script.task("b")
    rig.runner.act("a").result = RunResult(exit_code="no number", log_tail="")  # type: ignore[arg-type]

    with rig.consuming():
        eventually(lambda: _ended(second))

    assert first.reports == []


def test_an_answer_that_makes_no_sense_does_not_end_the_loop(rig: Rig) -> None:
    task = rig.script.task("a")
    sane, rig.script.lease_seconds = rig.script.lease_seconds, "soon"  # type: ignore[assignment]

    with rig.consuming():
        eventually(lambda: "claim" in rig.script.calls)
        rig.script.lease_seconds = sane
        eventually(lambda: ("given back", "a") in rig.inbox.fates)
        task.state = TaskState.PENDING
        eventually(lambda: _ended(task))


def test_three_slow_uploads_hold_the_loop_and_not_the_leases(rig: Rig) -> None:
    tasks = [rig.script.task(f"t{number}") for number in range(5)]
    rig.script.mishaps["output"] = [Unavailable("away")] * 1000

    with rig.consuming():
        eventually(rig.runner.act("t2").started.is_set)
        eventually(lambda: all(len(task.beats) > 3 for task in tasks[:3]))
        assert tasks[3].state is TaskState.PENDING
        rig.script.mishaps["output"] = []
        eventually(lambda: _ended(*tasks), within=30)


def test_after_a_stop_a_running_model_may_end_and_is_reported(rig: Rig) -> None:
    task, waiting = rig.script.task("a"), rig.script.task("b")
    act = rig.runner.held("a")

    with rig.consuming() as thread:
        act.started.wait(60)
        rig.stop.set()
        eventually(lambda: len(task.beats) >= 2)
        assert thread.is_alive()
        act.gate.set()
        thread.join(60)

        assert not thread.is_alive()
    assert task.report.outcome is Outcome.SUCCEEDED
    assert (waiting.attempt, waiting.state) == (0, TaskState.PENDING)


def test_when_the_grace_is_over_the_task_is_handed_back(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")

    with rig.consuming(grace=timedelta(seconds=0.2)) as thread:
        act.started.wait(60)
        rig.stop.set()
        thread.join(60)

        assert not thread.is_alive()
    assert (task.report.outcome, task.state) == (Outcome.HANDED_BACK, TaskState.PENDING)


def test_a_second_signal_hands_back_at_once(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")

    with rig.consuming(grace=timedelta(hours=1)) as thread:
        act.started.wait(60)
        rig.stop.set()
        rig.hurry.set()
        thread.join(60)

        assert not thread.is_alive()
    assert task.report.outcome is Outcome.HANDED_BACK


def test_a_stop_with_private_api_away_ends_soon_after_the_grace(rig: Rig) -> None:
    task = rig.script.task("a")
    act = rig.runner.held("a")

    with rig.consuming(grace=timedelta(seconds=0.2)) as thread:
        act.started.wait(60)
        rig.script.away = True
        rig.stop.set()
        thread.join(60)

        assert not thread.is_alive()
    assert (task.reports, task.state) == ([], TaskState.RUNNING)


def test_an_idle_consumer_stops_soon(rig: Rig) -> None:
    with rig.consuming() as thread:
        eventually(lambda: "next" in rig.script.calls)
        rig.stop.set()
        thread.join(60)

        assert not thread.is_alive()


def test_no_thread_outlives_the_consumer(rig: Rig) -> None:
    task = rig.script.task("a")
    before = set(threading.enumerate())

    with rig.consuming():
        eventually(lambda: _ended(task))

    eventually(lambda: {t for t in set(threading.enumerate()) - before if t.name != "AnyIO worker thread"} == set())

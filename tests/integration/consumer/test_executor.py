"""One attempt from its claim to its report, over HTTP. The rig's teardown looks that nothing is left of any."""

import threading

import pytest

from contracts.errors import NotFound, PlatformError, StaleAttempt, StorageFull, Unavailable, UploadTooLarge
from contracts.tasks import LOG_TAIL_BYTES, Outcome, Step
from job_consumer.outcome import StopReason
from job_consumer.runner.base import ModelRefused, RunnerError, RunResult
from tests.integration.consumer.conftest import Rig
from tests.support.scripted_private_api import blob
from tests.support.waiting import eventually


def test_a_success_is_delivered_and_then_reported_with_its_times(rig: Rig) -> None:
    task = rig.script.task("a", b"the input")

    attempt = rig.work_on("a")

    assert task.outputs == [b"output of a: the input"]
    assert task.report.outcome is Outcome.SUCCEEDED
    assert task.report.output == blob(task.outputs[0])
    assert (task.report.exit_code, task.report.reason, task.report.log_tail) == (0, None, "all well\n")
    assert list(task.report.step_seconds) == [Step.STAGE, Step.RUN, Step.COLLECT, Step.UPLOAD]
    assert attempt.over.is_set()


def test_a_model_failure_keeps_exit_code_and_log_and_delivers_nothing(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.runner.act("a").result = RunResult(exit_code=3, log_tail="Traceback …\nValueError\n")

    rig.work_on("a")

    assert task.report.outcome is Outcome.MODEL_FAILED
    assert (task.report.exit_code, task.report.log_tail) == (3, "Traceback …\nValueError\n")
    assert "exit code 3" in (task.report.reason or "")
    assert task.outputs == []


@pytest.mark.parametrize(
    "error", [RunnerError("no engine"), OSError(28, "No space left on device"), KeyError("surprise")]
)
@pytest.mark.parametrize("step", ["prepare_error", "execute_error", "collect_error"])
def test_trouble_of_ours_in_any_step_is_reported_as_ours(rig: Rig, step: str, error: Exception) -> None:
    task = rig.script.task("a")
    setattr(rig.runner.act("a"), step, error)

    rig.work_on("a")

    assert task.report.outcome is Outcome.PLATFORM_FAILED
    assert task.report.reason


@pytest.mark.parametrize("step", ["prepare_error", "collect_error"])
def test_a_refused_model_or_output_is_the_models_failure(rig: Rig, step: str) -> None:
    task = rig.script.task("a")
    setattr(rig.runner.act("a"), step, ModelRefused("The image is not there."))

    rig.work_on("a")

    assert (task.report.outcome, task.report.reason) == (Outcome.MODEL_FAILED, "The image is not there.")


def test_model_content_is_brought_once(rig: Rig) -> None:
    rig.script.task("a", model_content=b"weights")
    rig.script.task("b", model_content=b"weights")

    rig.work_on("a")
    rig.runner.models.add(blob(b"weights").sha256)
    rig.work_on("b")

    assert rig.runner.model_zips == [b"weights", None]
    assert rig.script.calls.count("model") == 1


@pytest.mark.parametrize("route", ["input", "output", "finish"])
def test_private_api_being_away_for_a_while_costs_no_attempt(rig: Rig, route: str) -> None:
    task = rig.script.task("a")
    rig.script.mishaps[route] = [Unavailable("restarting"), PlatformError("an accident"), Unavailable("restarting")]

    rig.work_on("a")

    assert task.report.outcome is Outcome.SUCCEEDED
    assert rig.script.calls.count(route) == 4


def test_a_damaged_download_is_fetched_again(rig: Rig) -> None:
    task = rig.script.task("a", b"whole")
    attempt = rig.attempt("a")
    task.input = b"damaged"

    def repair() -> None:
        eventually(lambda: rig.script.calls.count("input") >= 1)
        task.input = b"whole"

    repairer = threading.Thread(target=repair)
    repairer.start()
    rig.executor.complete(rig.executor.run(attempt, lambda _: None))
    repairer.join(60)

    assert rig.runner.runs[0].input == b"whole"


@pytest.mark.parametrize("route", ["output", "finish"])
@pytest.mark.parametrize("error", [StaleAttempt("another has it"), NotFound("deleted")])
def test_a_stale_attempt_reports_nothing_and_leaves_nothing(rig: Rig, route: str, error: PlatformError) -> None:
    task = rig.script.task("a")
    rig.script.mishaps[route] = [error]

    attempt = rig.work_on("a")

    assert task.reports == []
    assert attempt.over.is_set()


def test_a_full_disk_behind_is_not_waited_for(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.script.mishaps["output"] = [StorageFull("disk full")]

    rig.work_on("a")

    assert (task.report.outcome, task.report.reason) == (Outcome.PLATFORM_FAILED, "disk full")
    assert rig.script.calls.count("output") == 1


def test_an_output_that_is_too_large_is_the_models_failure(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.script.mishaps["output"] = [UploadTooLarge("The output exceeds 1 GiB.")]

    rig.work_on("a")

    assert (task.report.outcome, task.report.reason) == (Outcome.MODEL_FAILED, "The output exceeds 1 GiB.")


def test_what_was_left_out_of_the_output_is_told_in_the_log(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.runner.act("a").skipped = ["a-link", "a-pipe"]

    rig.work_on("a")

    assert task.report.outcome is Outcome.SUCCEEDED
    assert task.report.log_tail.startswith("all well\n")
    assert "a-link, a-pipe" in task.report.log_tail


def test_a_log_never_exceeds_what_a_report_may_carry(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.runner.act("a").result = RunResult(exit_code=0, log_tail="é" * (LOG_TAIL_BYTES // 2))
    rig.runner.act("a").skipped = ["x" * 2000 for _ in range(20)]

    rig.work_on("a")

    assert LOG_TAIL_BYTES - 1 <= len(task.report.log_tail.encode()) <= LOG_TAIL_BYTES
    assert task.report.log_tail.endswith("…\n")


@pytest.mark.parametrize(
    ("reason", "outcome"), [(StopReason.CANCELLED, Outcome.CANCELLED), (StopReason.DRAINED, Outcome.HANDED_BACK)]
)
def test_an_attempt_that_is_stopped_before_its_model_never_runs_it(
    rig: Rig, reason: StopReason, outcome: Outcome
) -> None:
    task = rig.script.task("a")
    attempt = rig.attempt("a")
    attempt.stop(reason)

    rig.executor.complete(rig.executor.run(attempt, lambda _: None))

    assert task.report.outcome is outcome
    assert not rig.runner.act("a").started.is_set()


@pytest.mark.parametrize(
    ("reason", "outcome"), [(StopReason.CANCELLED, Outcome.CANCELLED), (StopReason.DRAINED, Outcome.HANDED_BACK)]
)
def test_a_delivery_that_is_waited_for_ends_with_the_stop(rig: Rig, reason: StopReason, outcome: Outcome) -> None:
    task = rig.script.task("a")
    rig.script.mishaps["output"] = [Unavailable("away")] * 1000
    attempt = rig.attempt("a")
    work = threading.Thread(target=lambda: rig.executor.complete(rig.executor.run(attempt, lambda _: None)))

    work.start()
    eventually(lambda: rig.script.calls.count("output") >= 2)
    attempt.stop(reason)
    work.join(60)

    assert not work.is_alive()
    assert task.report.outcome is outcome


def test_a_lost_lease_during_the_delivery_reports_nothing(rig: Rig) -> None:
    task = rig.script.task("a")
    rig.script.mishaps["output"] = [Unavailable("away")] * 1000
    attempt = rig.attempt("a")
    work = threading.Thread(target=lambda: rig.executor.complete(rig.executor.run(attempt, lambda _: None)))

    work.start()
    eventually(lambda: rig.script.calls.count("output") >= 1)
    rig.script.mishaps["heartbeat"] = [StaleAttempt("another has it")]
    work.join(60)

    assert not work.is_alive()
    assert attempt.stop_reason is StopReason.LOST
    assert (task.reports, rig.script.calls.count("finish")) == ([], 0)


def test_a_drained_consumer_gives_up_its_report_after_one_more_try(rig: Rig) -> None:
    rig.script.task("a")
    rig.script.mishaps["finish"] = [Unavailable("away")] * 1000
    attempt = rig.attempt("a")
    work = threading.Thread(target=lambda: rig.executor.complete(rig.executor.run(attempt, lambda _: None)))

    work.start()
    eventually(lambda: rig.script.calls.count("finish") >= 2)
    attempt.stop(StopReason.DRAINED)
    work.join(60)

    assert not work.is_alive()
    assert attempt.over.is_set()

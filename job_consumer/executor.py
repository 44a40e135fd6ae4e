"""Takes one attempt through its steps: stage, run, collect, upload, report; and cleans up whatever happened.

The steps come in this order and each is timed. How the attempt ended is decided by ``outcome``, once, from what the
steps left. The consumer's loop calls ``stage`` and ``run``; ``complete`` may go on while the next model runs.
"""

from collections.abc import Callable
from datetime import timedelta
from threading import Event
from typing import TypeVar

from contracts.errors import NotFound, PlatformError, StaleAttempt, StorageFull, Unavailable
from contracts.models import BlobRef
from contracts.tasks import LOG_TAIL_BYTES, Assignment, Claim, FinishReport, Outcome, Step
from job_consumer import outcome
from job_consumer.attempt import Attempt
from job_consumer.leases import LeaseKeeper
from job_consumer.outcome import Facts, Failure, StopReason
from job_consumer.private_api import Interrupted, PrivateApi
from job_consumer.runner.base import ModelRefused, Run, Runner, RunnerError, RunResult
from job_consumer.transfers import Transfers
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline

T = TypeVar("T")

FETCH_WITHIN = timedelta(minutes=5)
"""How long private_api may be away while an input is wanted, before the attempt is given up."""
REPORT_WITHIN = timedelta(minutes=30)
"""How long it may be away while a result waits here; giving up a result wastes the whole run."""


class Executor:
    """Works on attempts; keeps nothing between them."""

    def __init__(self, private_api: PrivateApi, runner: Runner, leases: LeaseKeeper, transfers: Transfers) -> None:
        self._private_api = private_api
        self._runner = runner
        self._leases = leases
        self._transfers = transfers

    def stage(self, assignment: Assignment, stopped: Event) -> Run:
        """Bring the bytes here and prepare the run; claimed or not, nothing of the model executes yet.

        Raises
        ------
        RunnerError, ModelRefused, PlatformError, OSError, Interrupted
            Nothing is left behind; the last one when ``stopped`` was set.
        """
        deadline = Deadline(FETCH_WITHIN)
        with self._transfers.folder() as folder:
            input_zip, model_zip = folder / "input.zip", None
            _retrying(lambda: self._private_api.download_input(assignment, input_zip, stopped), deadline, stopped)
            content = assignment.model.content
            if content is not None and not self._runner.has_model(content.sha256):
                model_zip = destination = folder / "model.zip"
                _retrying(lambda: self._private_api.download_model(assignment, destination, stopped), deadline, stopped)
            return self._runner.prepare(assignment, input_zip, model_zip)

    def run(self, attempt: Attempt, staged: Callable[[Attempt], Run | None]) -> "Ended":
        """Take what was staged ahead, or stage the attempt now, and run its model to the end. Never raises."""
        run: Run | None = None
        result: RunResult | None = None
        failure: Failure | None = None
        try:
            with attempt.at(Step.STAGE):
                run = staged(attempt) or self.stage(attempt.claim, attempt.stopped)
                self._remove_predecessors(attempt.claim)
            if not attempt.stopped.is_set():
                with attempt.at(Step.RUN):
                    result = run.execute(attempt.stopped)
        except Exception as error:  # noqa: BLE001 - a claimed task must be reported, whatever happens
            failure = _failure_of(error, attempt)
        return Ended(attempt, run, result, failure)

    def _remove_predecessors(self, claim: Claim) -> None:
        """End what earlier attempts of the task still run on this host: the claim proves that they are over."""
        if claim.attempt == 1:
            return
        for left in self._runner.leftovers():
            if left.task_id == claim.task_id and left.attempt < claim.attempt:
                self._runner.remove_leftover(left)

    def complete(self, ended: "Ended") -> None:
        """Collect and upload the output, report the outcome, and remove every trace of the attempt on this host."""
        attempt = ended.attempt
        try:
            report = self._report_of(ended)
            if report is not None:
                deadline = Deadline(REPORT_WITHIN)
                _retrying(lambda: self._private_api.finish(attempt.claim, report), deadline, attempt.drained)
                attempt.log.info("attempt_ended", outcome=report.outcome, reason=report.reason, **_seconds(attempt))
            else:
                attempt.log.warning("attempt_dropped", reason="its lease went to another attempt")
        except (StaleAttempt, NotFound):
            attempt.log.warning("attempt_refused", reason="its lease went to another attempt, or the task was deleted")
        except PlatformError as error:
            attempt.log.warning("report_failed", error=error.message)
        finally:
            self._leases.release(attempt)
            attempt.over.set()
            if ended.run is not None:
                ended.run.discard()

    def _report_of(self, ended: "Ended") -> FinishReport | None:
        """The report that the attempt ends with; uploads the output on the way. None when it may not report."""
        attempt, result = ended.attempt, ended.result
        output: BlobRef | None = None
        skipped: list[str] = []
        if ended.succeeded:
            try:
                output, skipped = self._deliver(ended)
            except (StaleAttempt, NotFound):
                attempt.stop(StopReason.LOST)
            except Exception as error:  # noqa: BLE001 - a claimed task must be reported, whatever happens
                ended.failure = _failure_of(error, attempt)
        limits, stop = attempt.claim.model.limits, attempt.stop_reason
        verdict = outcome.decide(Facts(limits, result, ended.failure, stop, delivered=output is not None))
        if verdict is None:
            return None
        return FinishReport(
            consumer=attempt.ref.consumer,
            outcome=verdict.outcome,
            reason=verdict.reason,
            exit_code=result.exit_code if result is not None and not result.cancelled else None,
            log_tail=_log_of(result, skipped),
            output=output,
            step_seconds=attempt.step_seconds,
        )

    def _deliver(self, ended: "Ended") -> tuple[BlobRef, list[str]]:
        attempt, run = ended.attempt, ended.run
        assert run is not None, "what succeeded was prepared"  # noqa: S101
        with self._transfers.folder() as folder:
            output_zip = folder / "output.zip"
            with attempt.at(Step.COLLECT):
                skipped = run.collect(output_zip)
            with attempt.at(Step.UPLOAD):
                output = _retrying(
                    lambda: self._private_api.upload_output(attempt.claim, output_zip, attempt.stopped),
                    Deadline(REPORT_WITHIN),
                    attempt.stopped,
                )
        return output, skipped


class Ended:
    """An attempt whose model is over, or never ran: what is needed to complete it."""

    def __init__(self, attempt: Attempt, run: Run | None, result: RunResult | None, failure: Failure | None) -> None:
        self.attempt = attempt
        self.run = run
        self.result = result
        self.failure = failure

    @property
    def is_platform_failure(self) -> bool:
        """Whether this host, not the model, was the trouble."""
        return isinstance(self.failure, RunnerError | OSError)

    @property
    def succeeded(self) -> bool:
        """Whether the model ended well and its output may count."""
        return (
            self.result is not None
            and self.attempt.stop_reason is not StopReason.LOST
            and outcome.of_result(self.result, self.attempt.claim.model.limits).outcome is Outcome.SUCCEEDED
            and not self.result.cancelled
        )


def _failure_of(error: Exception, attempt: Attempt) -> Failure | None:
    """What counts as the failure: an error that nobody foresaw is ours, a transfer that was called off is none."""
    match error:
        case Interrupted():
            return None
        case RunnerError() | ModelRefused() | PlatformError() | OSError():
            return error
        case _:
            attempt.log.error("attempt_crashed", exc_info=error)
            return RunnerError(f"The consumer met an error of its own ({type(error).__name__}); its log has it.")


def _retrying(call: Callable[[], T], deadline: Deadline, enough: Event) -> T:
    """Repeat a call while private_api is away, until the deadline; once ``enough`` is set, there is one last try.

    A full disk over there is an answer, not an absence.
    """
    backoff = Backoff()
    while True:
        is_last = enough.is_set()
        try:
            return call()
        except StorageFull:
            raise
        except Unavailable:
            pause = backoff.pause()
            if is_last or deadline.remaining <= pause:
                raise
            enough.wait(pause.total_seconds())


def _log_of(result: RunResult | None, skipped: list[str]) -> str:
    """The end of the model's log, and what of its output was left out; no longer than a report may carry."""
    log = result.log_tail if result is not None else ""
    if skipped:
        names = ", ".join(skipped[:10]) + (", …" if len(skipped) > 10 else "")
        log = f"{log}\n[platform] left out of the output, being neither files nor folders: {names}\n"
    return log.encode(errors="replace")[-LOG_TAIL_BYTES:].decode(errors="ignore")


def _seconds(attempt: Attempt) -> dict[str, float]:
    return {f"{step}_seconds": seconds for step, seconds in attempt.step_seconds.items()}

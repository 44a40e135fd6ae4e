"""Ours or the model's: the one place that decides how an attempt ended, from the facts and nothing else."""

from dataclasses import dataclass
from enum import Enum

from contracts.errors import PlatformError, UploadTooLarge
from contracts.models import Limits
from contracts.tasks import Outcome
from job_consumer.runner.base import ModelRefused, RunnerError, RunResult


class StopReason(Enum):
    """Why an attempt was told to stop before its model ended."""

    CANCELLED = "cancelled"
    """A heartbeat answered with a cancel."""
    LOST = "lost"
    """The lease went to another attempt: nothing that this one writes counts any more."""
    DRAINED = "drained"
    """This consumer stops, and its grace period is over."""


Failure = RunnerError | ModelRefused | PlatformError | OSError
"""What may go wrong in an attempt, apart from the model ending badly."""


@dataclass(frozen=True)
class Facts:
    """What is known when an attempt is over; ``delivered`` means that private_api has its output."""

    limits: Limits
    result: RunResult | None
    failure: Failure | None
    stop: StopReason | None
    delivered: bool


@dataclass(frozen=True)
class Verdict:
    """How the attempt ended, and the sentence that the user reads; none for a success."""

    outcome: Outcome
    reason: str | None


def decide(facts: Facts) -> Verdict | None:
    """How the attempt ended; None when it may not say anything, because the task went to another attempt."""
    if facts.stop is StopReason.LOST:
        return None
    if facts.delivered:
        return Verdict(Outcome.SUCCEEDED, None)
    by_model = _of_model(facts)
    if by_model is not None:
        return by_model
    if facts.stop is not None:
        return _of_stop(facts.stop)
    if facts.failure is not None:
        return of_failure(facts.failure)
    return Verdict(Outcome.PLATFORM_FAILED, "The model's output did not reach the platform.")


def _of_model(facts: Facts) -> Verdict | None:
    """The model's own failure, where there is one; nobody's stop and no trouble of ours outweighs it."""
    if isinstance(facts.failure, ModelRefused | UploadTooLarge):
        return of_failure(facts.failure)
    if facts.result is None or facts.result.cancelled:
        return None
    verdict = of_result(facts.result, facts.limits)
    return verdict if verdict.outcome is Outcome.MODEL_FAILED else None


def _of_stop(stop: StopReason) -> Verdict:
    if stop is StopReason.CANCELLED:
        return Verdict(Outcome.CANCELLED, "Cancelled while it ran.")
    return Verdict(Outcome.HANDED_BACK, "The consumer was stopped; the task goes to another one.")


def of_failure(failure: Failure) -> Verdict:
    """Trouble outside the model is ours and gets another attempt; what the model brought with it is final."""
    match failure:
        case ModelRefused() | UploadTooLarge():
            return Verdict(Outcome.MODEL_FAILED, str(failure))
        case RunnerError() | PlatformError():
            return Verdict(Outcome.PLATFORM_FAILED, str(failure))
        case OSError():
            return Verdict(Outcome.PLATFORM_FAILED, f"The consumer's disk failed: {failure.strerror or failure}.")


def of_result(result: RunResult, limits: Limits) -> Verdict:
    """A model that ended: exit code 0 within its limits is success, all else its failure."""
    if result.out_of_memory:
        limit = f"{limits.memory_bytes / 2**20:g} MiB"
        reason = f"The model needed more memory than its limit of {limit} and was stopped."
    elif result.timed_out:
        reason = f"The model did not end within {limits.timeout_seconds:g} s and was stopped."
    elif result.exit_code != 0:
        reason = f"The model ended with exit code {result.exit_code}."
    else:
        return Verdict(Outcome.SUCCEEDED, None)
    return Verdict(Outcome.MODEL_FAILED, reason)

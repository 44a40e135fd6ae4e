import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import HostileArchive, NotFound, StorageFull, Unavailable, UploadTooLarge
from contracts.models import Limits
from contracts.tasks import Outcome
from job_consumer.outcome import Facts, Failure, StopReason, decide
from job_consumer.runner.base import ModelRefused, RunnerError, RunResult

LIMITS = Limits(timeout_seconds=90, memory_bytes=512 * 2**20, cpus=1, pids=64, shm_bytes=0)
WELL = RunResult(exit_code=0, log_tail="")
BADLY = RunResult(exit_code=2, log_tail="")
KILLED = RunResult(exit_code=137, log_tail="", cancelled=True)
TOO_LONG = RunResult(exit_code=137, log_tail="", timed_out=True)
TOO_BIG = RunResult(exit_code=137, log_tail="", out_of_memory=True)

MODELS_OWN: list[Failure] = [ModelRefused("no image"), UploadTooLarge("too much output")]
OURS: list[Failure] = [
    RunnerError("no engine"),
    Unavailable("away"),
    StorageFull("full"),
    NotFound("gone"),
    HostileArchive("changed on its way"),
    OSError(28, "No space left on device"),
]

facts = st.builds(
    Facts,
    limits=st.just(LIMITS),
    result=st.sampled_from([None, WELL, BADLY, KILLED, TOO_LONG, TOO_BIG]),
    failure=st.sampled_from([None, *MODELS_OWN, *OURS]),
    stop=st.sampled_from([None, *StopReason]),
    delivered=st.booleans(),
)


@pytest.mark.parametrize(
    ("result", "failure", "stop", "outcome", "words"),
    [
        (BADLY, None, None, Outcome.MODEL_FAILED, "exit code 2"),
        (TOO_LONG, None, None, Outcome.MODEL_FAILED, "within 90 s"),
        (TOO_BIG, None, None, Outcome.MODEL_FAILED, "512 MiB"),
        (None, ModelRefused("no image"), None, Outcome.MODEL_FAILED, "no image"),
        (WELL, UploadTooLarge("too much"), None, Outcome.MODEL_FAILED, "too much"),
        (None, RunnerError("no engine"), None, Outcome.PLATFORM_FAILED, "no engine"),
        (WELL, Unavailable("away"), None, Outcome.PLATFORM_FAILED, "away"),
        (None, OSError(28, "No space left on device"), None, Outcome.PLATFORM_FAILED, "No space left"),
        (None, None, None, Outcome.PLATFORM_FAILED, "did not reach"),
        (None, None, StopReason.CANCELLED, Outcome.CANCELLED, "Cancelled"),
        (KILLED, None, StopReason.CANCELLED, Outcome.CANCELLED, "Cancelled"),
        (WELL, Unavailable("away"), StopReason.CANCELLED, Outcome.CANCELLED, "Cancelled"),
        (KILLED, None, StopReason.DRAINED, Outcome.HANDED_BACK, "goes to another"),
        (WELL, None, StopReason.DRAINED, Outcome.HANDED_BACK, "goes to another"),
        (BADLY, None, StopReason.DRAINED, Outcome.MODEL_FAILED, "exit code 2"),
        (TOO_LONG, None, StopReason.CANCELLED, Outcome.MODEL_FAILED, "within 90 s"),
    ],
)
def test_an_attempt_ends_as_its_facts_say(
    result: RunResult | None, failure: Failure | None, stop: StopReason | None, outcome: Outcome, words: str
) -> None:
    verdict = decide(Facts(LIMITS, result, failure, stop, delivered=False))

    assert verdict is not None
    assert verdict.outcome is outcome
    assert words in (verdict.reason or "")


def test_a_delivered_output_is_a_success_and_needs_no_reason() -> None:
    verdict = decide(Facts(LIMITS, WELL, None, StopReason.DRAINED, delivered=True))

    assert verdict is not None
    assert (verdict.outcome, verdict.reason) == (Outcome.SUCCEEDED, None)


@given(facts)
def test_a_lost_attempt_never_says_anything_and_every_other_does(facts: Facts) -> None:
    assert (decide(facts) is None) == (facts.stop is StopReason.LOST)


@given(facts)
def test_what_was_delivered_succeeded_and_nothing_else_did(facts: Facts) -> None:
    verdict = decide(facts)

    if verdict is not None:
        assert (verdict.outcome is Outcome.SUCCEEDED) == facts.delivered
        assert (verdict.reason is None) == facts.delivered


@given(facts)
def test_a_models_own_failure_is_final_whatever_else_happened(facts: Facts) -> None:
    verdict = decide(facts)

    own = facts.result in (BADLY, TOO_LONG, TOO_BIG) or facts.failure in MODELS_OWN
    if verdict is not None and not facts.delivered:
        assert (verdict.outcome is Outcome.MODEL_FAILED) == own


@given(facts)
def test_trouble_of_ours_is_never_blamed_on_the_model(facts: Facts) -> None:
    verdict = decide(facts)

    if verdict is not None and facts.failure in OURS and facts.result in (None, WELL) and not facts.delivered:
        assert verdict.outcome in {Outcome.PLATFORM_FAILED, Outcome.HANDED_BACK, Outcome.CANCELLED}

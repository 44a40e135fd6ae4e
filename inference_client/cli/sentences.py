"""What a task is doing, in a sentence; and tables for people."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from contracts.task_state import TaskState
from contracts.tasks import Step, TaskStatus
from inference_client.cli.quantities import show_duration

_STEPS: Mapping[Step, str] = {
    Step.STAGE: "bringing the input to the model",
    Step.RUN: "the model works",
    Step.COLLECT: "collecting the output",
    Step.UPLOAD: "storing the output",
}


def doing(status: TaskStatus) -> str:
    """Where the task stands; the same sentence as long as nothing changes."""
    if status.state is TaskState.PENDING:
        place = f", number {status.position} in the queue" if status.position is not None else ""
        reason = f": {status.waiting_for}" if status.waiting_for else ""
        return f"pending{place}{reason}"
    if status.state is TaskState.RUNNING:
        attempt = f" (attempt {status.attempt} of {status.max_attempts})" if status.attempt > 1 else ""
        return f"running{attempt}" + (f": {_STEPS[status.step]}" if status.step else "")
    seconds = run_seconds(status)
    took = f" after {show_duration(timedelta(seconds=seconds))} of run time" if seconds is not None else ""
    return f"{status.state.value}{took}" + (f": {status.error}" if status.error else "")


def run_seconds(status: TaskStatus) -> float | None:
    """How long the model itself ran in the last attempt; while it runs, the time since its start."""
    if not status.attempts:
        return None
    attempt = status.attempts[-1]
    if Step.RUN in attempt.step_seconds:
        return attempt.step_seconds[Step.RUN]
    if attempt.ended_at is None and status.state is TaskState.RUNNING:
        return max(0.0, (datetime.now(UTC) - attempt.started_at).total_seconds())
    return None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)

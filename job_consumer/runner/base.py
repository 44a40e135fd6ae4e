"""What the consumer asks of a runner.

The life of one run, always in this order; ``discard`` comes whatever happened before and may come twice::

    run = runner.prepare(assignment, input_zip, model_zip)     stage: unpack, create; nothing of the model executes
    result = run.execute(cancelled)                            run: start, wait, keep the log's tail
    skipped = run.collect(output_zip)                          collect: zip what the model left in its output folder
    run.discard()                                              remove container, volumes, folders
"""

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from contracts.tasks import Assignment, AttemptRef


class RunnerError(Exception):
    """The platform's trouble, not the model's (engine gone, disk full): the task gets another attempt elsewhere."""


class ModelRefused(Exception):
    """The model cannot be run as registered (image missing and pull refused, bad archive): final, with this reason."""


@dataclass(frozen=True)
class RunResult:
    """How the model ended.

    ``exit_code`` is the process's own, or 128 + the signal that killed it. At most one of ``timed_out``,
    ``out_of_memory`` and ``cancelled`` is true. ``log_tail`` is stdout and stderr together, the last LOG_TAIL_BYTES of
    them, decoded with replacement.
    """

    exit_code: int
    log_tail: str
    timed_out: bool = False
    out_of_memory: bool = False
    cancelled: bool = False


class Run(Protocol):
    """One attempt's container or process, prepared and not started."""

    def execute(self, cancelled: Event) -> RunResult:
        """Start the model and wait for its end; kill it when its time is up or ``cancelled`` is set.

        Raises
        ------
        RunnerError
            It could not be started or watched, through no fault of the model.
        """

    def collect(self, output_zip: Path) -> list[str]:
        """Zip the output folder, empty folders included, into a new file; the names that were skipped (links, devices).

        Raises
        ------
        RunnerError
            The output could not be read.
        ModelRefused
            The output breaks the operator's bounds.
        """

    def discard(self) -> None:
        """Remove all traces on this host. Never raises; what could not be removed is logged and left to the sweeper."""


class Runner(Protocol):
    """Makes runs, and cleans up after dead ones."""

    def check(self) -> None:
        """Pass quickly when a task could be run here now; asked before each task is taken.

        Raises
        ------
        RunnerError
            It could not (engine away, scratch disk full): the consumer takes no task until this passes.
        """

    def prepare(self, assignment: Assignment, input_zip: Path, model_zip: Path | None) -> Run:
        """Bring input and model content to where the model will see them, and create it, not started.

        ``model_zip`` is None when the model has no content, or when :meth:`has_model` said that it is here already.

        Raises
        ------
        RunnerError, ModelRefused
            See their docstrings. Nothing is left behind in either case.
        """

    def has_model(self, content_sha256: str) -> bool:
        """Whether the model content is on this host already, complete."""

    def leftovers(self) -> list[AttemptRef]:
        """The attempts, of any consumer of this platform, that left something on this host or still run on it."""

    def remove_leftover(self, attempt: AttemptRef) -> bool:
        """Kill and remove all that belongs to the attempt; whether all is gone. Never raises, what stays is logged."""

    def forget_models(self, known_sha256: frozenset[str]) -> None:
        """Remove the kept content of models that no longer exist and that nothing uses. Never raises."""

    def close(self) -> None:
        """Let go of connections."""

"""A runner whose models are scripts: what each step of a run does is set per task uid."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from contracts.tasks import Assignment, AttemptRef
from job_consumer.runner.base import RunnerError, RunResult

SUCCESS = RunResult(exit_code=0, log_tail="all well\n")


@dataclass
class Act:
    """What one task's run does."""

    result: RunResult = SUCCESS
    prepare_error: Exception | None = None
    execute_error: Exception | None = None
    collect_error: Exception | None = None
    skipped: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """The model ends when it is set; set from the start unless a test clears it."""
    started: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()


class FakeRun:
    """One prepared run."""

    def __init__(self, runner: "FakeRunner", assignment: Assignment, act: Act, content: bytes) -> None:
        self.assignment = assignment
        self.input = content
        self.discards = 0
        self._runner = runner
        self._act = act

    def execute(self, cancelled: threading.Event) -> RunResult:
        with self._runner.lock:
            self._runner.executing += 1
            self._runner.most_executing = max(self._runner.most_executing, self._runner.executing)
        self._act.started.set()
        try:
            while not self._act.gate.wait(0.01):
                if cancelled.is_set():
                    return RunResult(exit_code=137, log_tail="killed\n", cancelled=True)
            if self._act.execute_error is not None:
                raise self._act.execute_error
            return self._act.result
        finally:
            with self._runner.lock:
                self._runner.executing -= 1

    def collect(self, output_zip: Path) -> list[str]:
        if self._act.collect_error is not None:
            raise self._act.collect_error
        output_zip.write_bytes(b"output of " + self.assignment.uid.encode() + b": " + self.input)
        return self._act.skipped

    def discard(self) -> None:
        self.discards += 1


class FakeRunner:
    """Keeps every run that it prepared, and how many executed at once."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.runs: list[FakeRun] = []
        self.trouble: RunnerError | None = None
        """What ``check`` raises."""
        self.checks = 0
        self.prepares = 0
        self.models: set[str] = set()
        self.model_zips: list[bytes | None] = []
        self.executing = 0
        self.most_executing = 0
        self.lock = threading.Lock()

    def act(self, uid: str) -> Act:
        return self.acts.setdefault(uid, Act())

    def held(self, uid: str) -> Act:
        """A model that runs until the test sets its gate."""
        self.act(uid).gate.clear()
        return self.act(uid)

    def runs_of(self, uid: str) -> list[FakeRun]:
        return [run for run in self.runs if run.assignment.uid == uid]

    def check(self) -> None:
        self.checks += 1
        if self.trouble is not None:
            raise self.trouble

    def prepare(self, assignment: Assignment, input_zip: Path, model_zip: Path | None) -> FakeRun:
        act = self.act(assignment.uid)
        self.prepares += 1
        if act.prepare_error is not None:
            raise act.prepare_error
        self.model_zips.append(model_zip.read_bytes() if model_zip is not None else None)
        self.runs.append(FakeRun(self, assignment, act, input_zip.read_bytes()))
        return self.runs[-1]

    def has_model(self, content_sha256: str) -> bool:
        return content_sha256 in self.models

    def leftovers(self) -> list[AttemptRef]:
        return []

    def remove_leftover(self, attempt: AttemptRef) -> bool:  # noqa: ARG002
        """Nothing is ever left over."""
        return True

    def forget_models(self, known_sha256: frozenset[str]) -> None:
        self.models &= known_sha256

    def close(self) -> None:
        """Nothing to close."""

"""Whatever users, consumers and time do, in whatever order: fences hold, attempts are bounded, outputs are committed once."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import text

from contracts.errors import ClaimRefused, IllegalTransition, InvalidRequest, StaleAttempt, UnknownTask
from contracts.models import BlobRef, RequestedLimits
from contracts.task_state import TRANSITIONS, TaskState
from contracts.tasks import FinishReport, Outcome, Step
from private_api.records import NewModel
from private_api.storage import tasks as task_rows
from private_api.storage.files import BlobKind
from private_api.wiring import Wiring
from tests.support import private_api

T = TypeVar("T")
MAX_ATTEMPTS = 3
DEEDS = (
    ["claim"] * 6
    + ["finish"] * 4
    + ["lapse"] * 3
    + ["upload", "heartbeat", "succeed"] * 2
    + ["post", "cancel", "delete"]
)
"""One rule draws from this list, because rules of their own cannot be weighed: most walks would end at the first cancel."""
CONSUMERS = st.sampled_from(["a", "b"])
WRITERS = st.sampled_from(["the right one"] * 6 + ["an old attempt", "another consumer"])


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@dataclass
class Known:
    """What the model of the test says of one task."""

    uid: str
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    owner: str | None = None
    counted: int = 0
    has_beaten: bool = False
    is_deleted: bool = False
    uploaded: bytes | None = None
    output: bytes | None = None
    reports: dict[tuple[int, str], Outcome] = field(default_factory=dict)

    def writer(self, kind: str) -> tuple[int, str]:
        """Attempt and consumer of a write; mostly the one that may write."""
        right = self.owner or "a"
        other = "b" if right == "a" else "a"
        return self.attempt - (kind == "an old attempt"), other if kind == "another consumer" else right

    def is_current(self, attempt: int, consumer: str) -> bool:
        return self.state is TaskState.RUNNING and (self.attempt, self.owner) == (attempt, consumer)

    def is_called_off(self, attempt: int, consumer: str) -> bool:
        return self.state is TaskState.CANCELLED and (self.attempt, self.owner) == (attempt, consumer)

    def release(self) -> None:
        """The attempt is over and another may begin, while there are any left."""
        if self.counted < MAX_ATTEMPTS:
            self.state, self.owner = TaskState.PENDING, None
        else:
            self.state = TaskState.FAILED


class TaskLife(RuleBasedStateMachine):
    """Drives the real services on SQLite, and a model of them beside."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.runner = asyncio.Runner()
        self.wiring = Wiring(private_api.settings(f"sqlite:///{root}/x.db", root / "data", max_attempts=MAX_ATTEMPTS))
        self.services = self.wiring.services
        self.known: list[Known] = []
        model = NewModel("m", None, "image", False, "/input", "/output", "/model", RequestedLimits())
        self.model = self.run(self.services.models.register(model, None))
        self.run(self.wiring.leases.look())
        self.post()
        self.post()

    def teardown(self) -> None:
        try:
            self.each_move_has_removed_the_files_that_it_left_without_a_purpose()
        finally:
            self.wiring.close()
            self.runner.close()
            self.folder.cleanup()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def is_refused(self, work: Coroutine[Any, Any, object], *errors: type[Exception]) -> bool:
        try:
            self.run(work)
        except errors:
            return True
        return False

    def post(self) -> None:
        blob = self.run(self.wiring.files.receive(BlobKind.INPUT, stream(b"input"), 100))
        self.known.append(Known(self.run(self.services.tasks.post(self.model, blob))))

    @rule(
        number=st.integers(0, 9),
        deed=st.sampled_from(DEEDS),
        writer=WRITERS,
        consumer=CONSUMERS,
        outcome=st.sampled_from(Outcome),
        content=st.binary(max_size=8),
    )
    def act(self, number: int, deed: str, writer: str, consumer: str, outcome: Outcome, content: bytes) -> None:
        task = self.known[number % len(self.known)]
        match deed:
            case "post":
                self.post()
            case "claim":
                self.claim(task, consumer)
            case "upload":
                self.upload(task, writer, content)
            case "finish":
                self.finish(task, writer, outcome)
            case "succeed":
                self.upload(task, writer, content)
                self.finish(task, writer, Outcome.SUCCEEDED)
            case "heartbeat":
                self.heartbeat(task, writer)
            case _:
                {"lapse": self.lapse, "cancel": self.cancel, "delete": self.delete}[deed](task)

    def claim(self, task: Known, consumer: str) -> None:
        may = task.state is TaskState.PENDING
        may_repeat = task.is_current(task.attempt, consumer) and not task.has_beaten
        refused = self.is_refused(self.services.attempts.claim(task.uid, consumer, has_gpu=False), ClaimRefused)

        assert refused is not (may or may_repeat)
        if may:
            task.state, task.owner = TaskState.RUNNING, consumer
            task.attempt += 1
            task.counted += 1
            task.has_beaten, task.uploaded = False, None

    def heartbeat(self, task: Known, writer: str) -> None:
        attempt, consumer = task.writer(writer)
        beat = self.services.attempts.heartbeat(task.uid, attempt, consumer, Step.RUN)
        if task.is_current(attempt, consumer):
            assert self.run(beat).cancel is False
            task.has_beaten = True
        elif task.is_called_off(attempt, consumer):
            assert self.run(beat).cancel is True
        else:
            assert self.is_refused(beat, StaleAttempt)

    def upload(self, task: Known, writer: str, content: bytes) -> None:
        attempt, consumer = task.writer(writer)
        put = self.services.attempts.put_output(task.uid, attempt, consumer, stream(content), 100)

        assert self.is_refused(put, StaleAttempt) is not task.is_current(attempt, consumer)
        if task.is_current(attempt, consumer):
            task.uploaded = content

    def finish(self, task: Known, writer: str, outcome: Outcome) -> None:
        attempt, consumer = task.writer(writer)
        content = task.uploaded or b""
        report = FinishReport(
            consumer=consumer,
            outcome=outcome,
            output=BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content)),
        )
        finish = self.services.attempts.finish(task.uid, attempt, report)
        if (attempt, consumer) in task.reports:
            assert self.is_refused(finish, StaleAttempt) is (task.reports[attempt, consumer] is not outcome)
        elif task.is_called_off(attempt, consumer):
            assert self.run(finish) is TaskState.CANCELLED
            task.reports[attempt, consumer] = outcome
        elif not task.is_current(attempt, consumer):
            assert self.is_refused(finish, StaleAttempt)
        elif outcome is Outcome.SUCCEEDED and task.uploaded is None:
            assert self.is_refused(finish, InvalidRequest)
        else:
            self._finished(task, outcome)
            task.reports[attempt, consumer] = outcome
            assert self.run(finish) is task.state

    def _finished(self, task: Known, outcome: Outcome) -> None:
        match outcome:
            case Outcome.SUCCEEDED:
                task.state, task.output = TaskState.FINISHED, task.uploaded
            case Outcome.MODEL_FAILED:
                task.state = TaskState.FAILED
            case Outcome.HANDED_BACK:
                task.counted -= 1
                task.state, task.owner = TaskState.PENDING, None
            case Outcome.PLATFORM_FAILED | Outcome.CANCELLED:
                task.release()

    def lapse(self, task: Known) -> None:
        silence = text("UPDATE tasks SET lease_until = 1 WHERE uid = :uid AND state = 'running'")
        self.wiring.database.write_sync(lambda tx: tx.execute(silence, {"uid": task.uid}))
        self.run(self.wiring.leases.look())
        if task.state is TaskState.RUNNING:
            task.release()

    def cancel(self, task: Known) -> None:
        cancel = self.services.tasks.cancel(task.uid)
        if task.is_deleted:
            assert self.is_refused(cancel, UnknownTask)
        elif task.state in {TaskState.FINISHED, TaskState.FAILED}:
            assert self.is_refused(cancel, IllegalTransition)
        else:
            assert self.run(cancel) is TaskState.CANCELLED
            task.state = TaskState.CANCELLED

    def delete(self, task: Known) -> None:
        assert self.is_refused(self.services.tasks.delete(task.uid), UnknownTask) is task.is_deleted
        task.is_deleted = True
        if TRANSITIONS[task.state]:
            task.state = TaskState.CANCELLED

    def each_move_has_removed_the_files_that_it_left_without_a_purpose(self) -> None:
        names = [name for kind in BlobKind for name in self.wiring.files.names(kind)]
        assert self.run(self.wiring.retention.remove_orphans(names)) == 0

    @invariant()
    def the_services_agree_with_the_model(self) -> None:
        for task in self.known:
            record = self.wiring.database.read_sync(partial(task_rows.find_task, uid=task.uid))
            assert record is not None
            assert (record.state, record.attempt, record.is_deleted) == (task.state, task.attempt, task.is_deleted)
            assert record.counted_attempts == task.counted <= MAX_ATTEMPTS
            if not task.is_deleted:
                assert (record.output is None) is (task.output is None)
            if record.output is not None:
                assert self.wiring.files.path(record.output.name).read_bytes() == task.output

    @invariant()
    def pending_tasks_and_no_others_are_marked_for_the_broker(self) -> None:
        marked = text("SELECT uid FROM tasks WHERE outbox ORDER BY id")
        uids = self.wiring.database.read_sync(lambda tx: list(tx.execute(marked).scalars()))
        assert uids == [task.uid for task in self.known if task.state is TaskState.PENDING]


TestTaskLife = TaskLife.TestCase
TestTaskLife.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.reuse, Phase.generate],  # shrinking a walk would outlast the test's time
)

"""The consumer's side of private_api by script: a real HTTP server with tasks in memory and mishaps as a test wants them."""

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Body, Request
from starlette.responses import Response

from contracts import routes
from contracts.errors import ClaimRefused, NotFound, PlatformError, StaleAttempt, Unavailable
from contracts.models import BlobRef, Limits, ModelForRun
from contracts.task_state import TaskState
from contracts.tasks import (
    Claim,
    ClaimRequest,
    FinishAnswer,
    FinishReport,
    HeartbeatAnswer,
    HeartbeatRequest,
    Outcome,
    StagingOffer,
    Step,
    TaskOffer,
)
from service_kit.http_app import create_app

LIMITS = Limits(timeout_seconds=60, memory_bytes=2**28, cpus=1, pids=64, shm_bytes=0)
STATE_AFTER = {
    Outcome.SUCCEEDED: TaskState.FINISHED,
    Outcome.MODEL_FAILED: TaskState.FAILED,
    Outcome.CANCELLED: TaskState.CANCELLED,
    Outcome.PLATFORM_FAILED: TaskState.PENDING,
    Outcome.HANDED_BACK: TaskState.PENDING,
}


def blob(content: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@dataclass
class Task:
    """One task and all that its consumers said of it."""

    uid: str
    number: int
    input: bytes
    model_content: bytes | None = None
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    max_attempts: int = 1_000_000
    cancel: bool = False
    claimed_by: list[str] = field(default_factory=list)
    beats: list[Step] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    reports: list[FinishReport] = field(default_factory=list)

    @property
    def model(self) -> ModelForRun:
        return ModelForRun(
            uid="model-uid",
            human_readable_id="model",
            container_tag="model:1",
            use_gpu=False,
            input_mountpoint="/input",
            output_mountpoint="/output",
            model_mountpoint="/model",
            limits=LIMITS,
            content=blob(self.model_content) if self.model_content is not None else None,
        )

    @property
    def report(self) -> FinishReport:
        assert len(self.reports) == 1, self.reports
        return self.reports[0]


class ScriptedPrivateApi:
    """Serve ``app``; tests read and change the rest from their own thread."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.mishaps: dict[str, list[PlatformError]] = defaultdict(list)
        """Per route name, the errors that its next calls get."""
        self.away = False
        """Whether every call gets a 503."""
        self.calls: list[str] = []
        """The names of the routes, in the order of the calls."""
        self.hold_inputs = False
        """Whether inputs are kept back for now."""
        self.lease_seconds = 0.4
        self.app = create_app("scripted private_api", "")
        self._add_routes()

    def task(self, uid: str, content: bytes = b"input", model_content: bytes | None = None) -> Task:
        self.tasks[uid] = Task(uid, len(self.tasks) + 1, content, model_content)
        return self.tasks[uid]

    def claim(self, uid: str, consumer: str = "me") -> Claim:
        """Grant a claim, as the route does."""
        task = self.tasks[uid]
        if task.state is not TaskState.PENDING:
            raise ClaimRefused("taken")
        task.state = TaskState.RUNNING
        task.attempt += 1
        task.claimed_by.append(consumer)
        return Claim(**self._assignment(task, task.attempt), lease_seconds=self.lease_seconds)

    def _assignment(self, task: Task, attempt: int) -> dict[str, object]:
        return {
            "task_id": task.number,
            "uid": task.uid,
            "attempt": attempt,
            "input": blob(task.input),
            "model": task.model,
        }

    def _meet(self, name: str) -> None:
        self.calls.append(name)
        if self.away:
            raise Unavailable("scripted to be away")
        if self.mishaps[name]:
            raise self.mishaps[name].pop(0)

    def _pending(self) -> Task | None:
        return next((task for task in self.tasks.values() if task.state is TaskState.PENDING), None)

    def _running(self, uid: str, attempt: int) -> Task:
        task = self.tasks.get(uid)
        if task is None:
            raise NotFound("deleted")
        if task.attempt != attempt or task.state is not TaskState.RUNNING:
            raise StaleAttempt("not the current attempt")
        return task

    def _add_routes(self) -> None:
        self._add_queue()
        self._add_files()
        self._add_attempts()

    def _add_queue(self) -> None:
        @self.app.get(routes.QUEUE_NEXT)
        async def next_task(wait: float) -> Response:
            self._meet("next")
            for _ in range(max(1, int(wait / 0.02))):
                task = self._pending()
                if task is not None:
                    return Response(TaskOffer(uid=task.uid).model_dump_json())
                await asyncio.sleep(0.02)
            return Response(status_code=204)

        @self.app.get(routes.QUEUE_PEEK)
        async def peek() -> Response:
            self._meet("peek")
            task = self._pending()
            if task is None:
                return Response(status_code=204)
            return Response(StagingOffer(**self._assignment(task, task.attempt + 1)).model_dump_json())

        @self.app.post(routes.CLAIM)
        async def claim(uid: str, request: ClaimRequest) -> Claim:
            self._meet("claim")
            return self.claim(uid, request.consumer)

    def _add_files(self) -> None:
        @self.app.get(routes.TASK_INPUT)
        async def task_input(uid: str) -> Response:
            self._meet("input")
            while self.hold_inputs:  # noqa: ASYNC110 - it is set by another thread
                await asyncio.sleep(0.02)
            return Response(self.tasks[uid].input)

        @self.app.get(routes.MODEL_CONTENT)
        async def model_content(uid: str) -> Response:
            self._meet("model")
            content = next(task.model_content for task in self.tasks.values() if task.model_content is not None)
            return Response(content)

        @self.app.put(routes.OUTPUT)
        async def output(uid: str, attempt: int, request: Request) -> BlobRef:
            body = await request.body()
            self._meet("output")
            self._running(uid, attempt).outputs.append(body)
            return blob(body)

    def _add_attempts(self) -> None:
        @self.app.post(routes.HEARTBEAT)
        async def heartbeat(uid: str, attempt: int, request: Annotated[HeartbeatRequest, Body()]) -> HeartbeatAnswer:
            self._meet("heartbeat")
            task = self._running(uid, attempt)
            task.beats.append(request.step)
            return HeartbeatAnswer(lease_seconds=self.lease_seconds, cancel=task.cancel)

        @self.app.post(routes.FINISH)
        async def finish(uid: str, attempt: int, report: Annotated[FinishReport, Body()]) -> FinishAnswer:
            self._meet("finish")
            task = self._running(uid, attempt)
            task.reports.append(report)
            task.state = STATE_AFTER[report.outcome]
            if task.state is TaskState.PENDING and task.attempt >= task.max_attempts:
                task.state = TaskState.FAILED
            return FinishAnswer(state=task.state)

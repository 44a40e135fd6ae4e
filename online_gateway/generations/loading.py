"""Having workers load a generation: one worker, or all that take part in a swap."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from contracts.inference import SwapReport, WorkerOutcome
from contracts.worker_protocol import CHUNK_BYTES, Chunk, Load, Loaded, NeedContent, ProtocolError, Unload
from online_gateway.generations.generation import Generation
from online_gateway.workers.port import WorkerConnection
from service_kit.deadline import Deadline


@dataclass(frozen=True)
class LoadOutcome:
    """What one worker made of a generation."""

    link: WorkerConnection
    loaded: Loaded | None
    """Its answer; None where there was none."""
    message: str
    """Why it was not loaded; '' where it was."""
    has_left: bool = False
    """Whether the worker ended in order before it could answer, which says nothing about the generation."""

    @property
    def is_ok(self) -> bool:
        """Whether it acknowledged the generation."""
        return self.loaded is not None and self.loaded.ok

    @property
    def reported(self) -> WorkerOutcome:
        """The same, for whoever installs."""
        trace = "" if self.loaded is None else self.loaded.trace
        return WorkerOutcome(self.link.worker_id, self.is_ok, self.message, trace)


class _Attempt:
    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.answer: asyncio.Future[Loaded | str] = asyncio.get_running_loop().create_future()
        self.feeding: asyncio.Task[None] | None = None
        self.has_left = False

    def settle(self, answer: Loaded | str) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Loader:
    """Sends Load and, where a worker wants it, the content; waits for the answer."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[WorkerConnection, str, int], _Attempt] = {}

    async def load(self, link: WorkerConnection, generation: Generation, deadline: Deadline) -> LoadOutcome:
        """Have the worker load it; whatever goes wrong is in the outcome. Once at a time for one generation."""
        key = (link, generation.endpoint, generation.number)
        attempt = self._attempts[key] = _Attempt(generation)
        seconds = deadline.remaining.total_seconds()
        answer: Loaded | str = ""
        try:
            link.send(
                Load(
                    generation.endpoint,
                    generation.number,
                    generation.digest,
                    generation.engine,
                    generation.config,
                    generation.content_bytes,
                )
            )
            if not link.is_open:
                attempt.settle("The worker was lost before it was asked.")
            async with asyncio.timeout(seconds):
                answer = await attempt.answer
        except TimeoutError:
            answer = f"The worker has not loaded it within {seconds:g} s."
        except ProtocolError as error:
            answer = str(error)
        finally:
            del self._attempts[key]
            if attempt.feeding is not None:
                attempt.feeding.cancel()
            if isinstance(answer, str):  # it may wait for the rest of the content, or be loading what nobody wants
                link.send(Unload(generation.endpoint, generation.number))
        if isinstance(answer, str):
            return LoadOutcome(link, None, answer, attempt.has_left)
        return LoadOutcome(link, answer, "" if answer.ok else answer.message or "The worker gave no reason.")

    def loaded(self, link: WorkerConnection, message: Loaded) -> None:
        """A worker's answer; one that nobody waits for any more counts for nothing."""
        attempt = self._attempts.get((link, message.endpoint, message.generation))
        if attempt is not None:
            attempt.settle(message)

    def needs_content(self, link: WorkerConnection, message: NeedContent) -> None:
        """A worker wants the content; not twice, and not of what it is not asked to load."""
        attempt = self._attempts.get((link, message.endpoint, message.generation))
        if attempt is not None and attempt.feeding is None and attempt.generation.content is not None:
            attempt.feeding = asyncio.create_task(_feed(link, attempt, attempt.generation.content))

    def left(self, link: WorkerConnection, *, in_order: bool) -> None:
        """It will not answer any more."""
        for (one, _, _), attempt in self._attempts.items():
            if one is link:
                attempt.has_left = in_order
                attempt.settle(
                    "The worker was stopped before it had loaded it."
                    if in_order
                    else "The worker was lost before it had loaded it."
                )

    def give_up(self, generation: Generation, reason: str) -> None:
        """Nobody wants it loaded any more."""
        for attempt in self._attempts.values():
            if attempt.generation is generation:
                attempt.settle(reason)


class Swap:
    """One generation on its way into all members of a pool, those that join meanwhile too."""

    def __init__(self, loader: Loader, generation: Generation, deadline: Deadline) -> None:
        self.generation = generation
        self._loader = loader
        self._deadline = deadline
        self._tasks: dict[WorkerConnection, asyncio.Task[LoadOutcome]] = {}
        self._is_decided = False

    def ask(self, link: WorkerConnection) -> None:
        """Have the worker take part, unless it is decided how the swap ends."""
        if not self._is_decided and not any(_has_failed(task) for task in self._tasks.values()):
            self._tasks[link] = asyncio.create_task(self._loader.load(link, self.generation, self._deadline))

    async def outcomes(self) -> list[LoadOutcome]:
        """Wait for all that take part; from then on no other does."""
        while any(not task.done() for task in self._tasks.values()):
            await asyncio.wait(self._tasks.values())
        self._is_decided = True
        return [task.result() for task in self._tasks.values()]

    def give_up(self, reason: str) -> None:
        """Have it fail for all that have not answered."""
        self._is_decided = True
        self._loader.give_up(self.generation, reason)

    def cancel(self) -> None:
        """Wait for nobody any more."""
        self._is_decided = True
        for task in self._tasks.values():
            task.cancel()


def swap_report(generation: Generation, outcomes: list[LoadOutcome]) -> SwapReport:
    """Accepted where every worker acknowledged it and one of them is left; who ended in order does not count."""
    counted = [one for one in outcomes if not one.has_left] or outcomes
    failed = [one for one in counted if not one.is_ok]
    name = f"generation {generation.number} of {generation.endpoint!r}"
    message = "OK"
    if failed:
        message = f"{len(failed)} of {len(counted)} workers did not load {name}: {failed[0].message}"
    elif not any(one.link.takes_calls for one in counted):
        message = f"Every worker that loaded {name} is gone since."
    reports = [one.reported for one in counted]
    return SwapReport(generation.endpoint, generation.number, message == "OK", reports, message)


def _has_failed(task: "asyncio.Task[LoadOutcome]") -> bool:
    return task.done() and not task.cancelled() and not task.result().is_ok


async def _feed(link: WorkerConnection, attempt: _Attempt, content: Path) -> None:
    """Send the content as fast as the worker takes it; about three pieces are in memory."""
    generation = attempt.generation
    size, sent = generation.content_bytes or 0, 0
    while True:
        try:
            await link.writable()
            data = await asyncio.to_thread(_piece, content, sent, min(CHUNK_BYTES, size - sent))
        except ConnectionError:
            return
        except OSError as error:
            attempt.settle(f"The gateway cannot read its content: {error}.")
            return
        if not data and sent < size:
            attempt.settle(f"The gateway's file has lost its end: {sent} of {size} bytes are left.")
            return
        sent += len(data)
        link.send(Chunk(generation.endpoint, generation.number, data, is_last=sent == size))
        if sent == size:
            return


def _piece(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)

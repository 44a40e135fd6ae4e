"""Whatever joins, dies, leaves, refuses or keeps silent, in whatever order: only what was accepted is ever served."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvloop
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contracts.errors import PlatformError
from contracts.inference import SwapReport
from contracts.worker_protocol import Load
from tests.support.gateway_core import GatewayCore, until
from tests.support.scripted_worker import ScriptedWorker

MOODS = strategies.sampled_from(["", "no", None])
"""What a worker says to a Load: loaded, refused, nothing yet."""


class Machine(RuleBasedStateMachine):
    """A gateway, its workers, and at most one installation on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.names = itertools.count(1)
        self.workers: list[ScriptedWorker] = []
        self.accepted = {1}
        self.installing: asyncio.Task[SwapReport] | None = None
        self.retries = patch.multiple(
            "online_gateway.generations.tending",
            FIRST_RETRY=timedelta(milliseconds=5),
            LAST_RETRY=timedelta(milliseconds=20),
        )
        self.retries.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    @initialize()
    def begin(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        self.core = GatewayCore(self.folder, silence_seconds=60)
        await self.core.__aenter__()
        await self.core.open()

    @rule(mood=MOODS)
    def a_worker_joins(self, mood: str | None) -> None:
        worker = self.run(self.core.worker(f"w-{next(self.names)}", verdict=lambda _: mood))
        self.workers.append(worker)

    @precondition(lambda self: self.workers)
    @rule(data=strategies.data(), mood=MOODS)
    def a_worker_changes_its_mind(self, data: strategies.DataObject, mood: str | None) -> None:
        worker = data.draw(strategies.sampled_from(self.workers))

        def verdict(_: Load) -> str | None:
            return mood

        worker.verdict = verdict
        if mood is not None:
            worker.answer_held()

    @precondition(lambda self: self.workers)
    @rule(data=strategies.data(), in_order=strategies.booleans())
    def a_worker_goes(self, data: strategies.DataObject, *, in_order: bool) -> None:
        worker = data.draw(strategies.sampled_from(self.workers))
        self.workers.remove(worker)
        if in_order:
            worker.leave()
        else:
            worker.die()

    @precondition(lambda self: self.installing is None)
    @rule()
    def an_installation_begins(self) -> None:
        self.installing = self.loop.create_task(self.core.install(b"weights %d" % next(self.names)))

    @precondition(lambda self: self.installing is not None)
    @rule()
    def everybody_answers_what_is_installed(self) -> None:
        for worker in self.workers:
            if worker.verdict(None) is None:  # type: ignore[arg-type] - moods look at no Load
                worker.verdict = lambda _: ""
        self.run(self._answer_until_installed())

    async def _answer_until_installed(self) -> None:
        assert self.installing is not None
        while not self.installing.done():
            for worker in self.workers:
                worker.answer_held()
            await asyncio.sleep(0.002)
        self._note_accepted()
        self.installing = None

    def _note_accepted(self) -> None:
        """Only rules end the installation for the machine: which rules may follow must not depend on time."""
        if self.installing is None or not self.installing.done():
            return
        with suppress(PlatformError):
            report = self.installing.result()
            assert all(outcome.ok for outcome in report.workers)
            assert report.workers
            self.accepted.add(report.generation)

    @rule()
    def time_passes(self) -> None:
        self.run(asyncio.sleep(0.01))

    @precondition(lambda self: self.installing is None)
    @rule()
    def the_gateway_is_started_again(self) -> None:
        self.run(self._stop())
        self.workers.clear()
        self.run(self._start())

    async def _stop(self) -> None:
        await self.core.__aexit__(None, None, None)

    @invariant()
    def only_what_was_accepted_is_served(self) -> None:
        if not hasattr(self, "core"):
            return
        self._note_accepted()
        state = self.core.generations.state("vectors")
        may_just_have_been = {state.accepted} if self.installing is not None else set()
        assert state.serving in self.accepted | may_just_have_been | {None}
        assert set(state.generations) <= self.accepted | may_just_have_been
        if self.installing is None:
            assert state.accepted == max(self.accepted)
        held = self.core.data_plane._endpoints["vectors"].generations
        answering = {number for number, generation in held.items() if generation.holders}
        assert answering <= self.accepted | may_just_have_been

    def teardown(self) -> None:
        if hasattr(self, "core"):
            self.run(self._end())
        self.retries.stop()
        self.loop.close()
        shutil.rmtree(self.folder)

    async def _end(self) -> None:
        """In the end all do what they should, and the last accepted one is served by every living worker."""
        for worker in self.workers:
            worker.verdict = lambda _: ""
            worker.answer_held()
        if self.installing is not None:
            await self._answer_until_installed()
        self.workers.append(await self.core.worker("the-last"))
        newest = max(self.accepted)

        await until(lambda: all(worker.generations() == [newest] for worker in self.workers))

        await until(lambda: len(self.core.generations.state("vectors").holders) == len(self.workers))
        assert (await self.core.call()).generation == newest
        await self._stop()


def test_only_what_was_accepted_is_served_whatever_workers_do() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

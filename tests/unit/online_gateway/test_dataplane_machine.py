"""Calls, workers, generations and time in any order: whatever happens, each call ends once and rightly."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.inference import (
    DeadlineExceeded,
    EndpointNotReady,
    InferCall,
    InferResult,
    InvalidInput,
    ModelFailed,
    QueueFull,
    UnknownEndpoint,
    WorkerLost,
)
from contracts.worker_protocol import Calls, Failure, FromGateway, Result
from online_gateway.dataplane.links import WINDOW
from online_gateway.dataplane.plane import SWEEP_SECONDS, DataPlane
from tests.support.held_link import HeldLink
from tests.support.simulated_loop import SimulatedLoop

SECONDS = {"slow": 0.02, "fast": 0.0001, "batched": 0.0001}
BATCH = {"slow": 1, "fast": 1, "batched": 4}
QUEUE_LIMIT = 6
DEADLINE_SECONDS = 5.0
UNSENDABLE = 2**70

endpoints = st.sampled_from(sorted(SECONDS))
generations = st.integers(1, 3)
picks = st.integers(0, 1000)
loads = st.sampled_from([0, 1, 2, 4, QUEUE_LIMIT])
"""Calls to each endpoint just before something happens."""


@dataclass(eq=False)
class Asked:
    """One call as its client sees it."""

    endpoint: str
    document: dict[str, Any]
    pinned: int | None
    arrived: float
    seconds: float
    flips: int
    """How many of the endpoint's flips were over."""
    task: "asyncio.Task[InferResult]"
    gone: asyncio.Event
    is_cancelled: bool = False
    ended: float = 0.0


class Worker(HeldLink):
    """Checks what it is sent."""

    def __init__(self, machine: "DataPlaneMachine", name: str) -> None:
        super().__init__(machine.plane, name)
        self.machine = machine
        self.held: dict[tuple[str, int], object] = {}
        """What it holds, each time that it was acknowledged by a token of its own."""
        self.sent_under: dict[int, object] = {}
        self.takes_calls = True
        self.on_send = self.check

    def check(self, message: FromGateway) -> None:
        if not isinstance(message, Calls):
            return
        assert self.takes_calls
        assert all((call.endpoint, call.generation) in self.held for call in message.calls)
        self.sent_under |= {call.id: self.held[call.endpoint, call.generation] for call in message.calls}
        wanted = [call for call in self.calls.values() if call.id not in self.cancelled]
        if message.together:
            assert len({(call.endpoint, call.generation) for call in message.calls}) == 1
            assert len(message.calls) <= BATCH[message.calls[0].endpoint]
        if any(call.endpoint == "slow" for call in wanted):
            assert len(wanted) == 1
        assert len(wanted) <= WINDOW


class DataPlaneMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = SimulatedLoop()
        self.plane = DataPlane(self.loop.time)
        self.sweeper = self.loop.create_task(self.plane.run())
        self.workers: list[Worker] = []
        self.open_calls: list[Asked] = []
        self.served: dict[str, list[int | None]] = {name: [] for name in SECONDS}
        self.retries = False
        self.asked = self.started = 0
        self.losses: Counter[int] = Counter()
        """How often a worker died with a call, by the call's number."""
        self.outcomes: Counter[str] = Counter()

    @initialize(retries=st.booleans())
    def open_endpoints(self, retries: bool) -> None:
        self.retries = retries
        for name in SECONDS:
            self.plane.open_endpoint(
                name,
                batch_size=BATCH[name],
                batch_delay_seconds=0.01,
                queue_limit=QUEUE_LIMIT,
                deadline_seconds=DEADLINE_SECONDS,
                retries_begun=retries,
            )
        for name in SECONDS:
            self.flip(name, 1)
        for _ in range(3):
            self.join()
        self.load(1)
        self.work(2)

    # Workers

    @rule()
    def join(self) -> None:
        self.started += 1
        self.workers.append(Worker(self, f"worker-{self.started}"))
        for name, served in self.served.items():
            self.hold(-1, name, served[-1] or 1)

    @precondition(lambda self: self.workers)
    @rule(pick=picks, endpoint=endpoints, generation=generations)
    def hold(self, pick: int, endpoint: str, generation: int) -> None:
        worker = self.workers[pick % len(self.workers)]
        if worker.takes_calls:
            worker.held.setdefault((endpoint, generation), object())
        self.settle(lambda: self.plane.add_holder(worker, endpoint, generation, "v"))

    @precondition(lambda self: self.workers)
    @rule(pick=picks, endpoint=endpoints, generation=generations)
    def let_go(self, pick: int, endpoint: str, generation: int) -> None:
        worker = self.workers[pick % len(self.workers)]
        worker.held.pop((endpoint, generation), None)
        self.settle(lambda: self.plane.remove_holder(worker, endpoint, generation))

    @precondition(lambda self: self.workers)
    @rule(calls=loads, pick=picks)
    def leave(self, calls: int, pick: int) -> None:
        self.load(calls)
        worker = self.workers[pick % len(self.workers)]
        worker.takes_calls = False
        worker.held.clear()
        self.settle(lambda: self.plane.stop_feeding(worker))

    @precondition(lambda self: self.workers)
    @rule(calls=loads, pick=picks)
    def die(self, calls: int, pick: int) -> None:
        self.load(calls)
        worker = self.workers.pop(pick % len(self.workers))
        worker.takes_calls = False
        worker.held.clear()
        wanted = [call for call in worker.calls.values() if call.id not in worker.cancelled]
        self.losses.update(call.document["n"] for call in wanted if call.document)
        self.settle(lambda: self.plane.remove_link(worker, "killed"))

    @rule(rounds=st.sampled_from([1, 1, 2, 8]))
    def work(self, rounds: int) -> None:
        for _ in range(rounds):
            for pick in range(len(self.workers)):
                self.answer(pick, WINDOW, from_the_end=False)
            self.wait(0.02)

    @precondition(lambda self: self.workers)
    @rule(pick=picks, how_many=st.integers(1, 12), from_the_end=st.booleans())
    def answer(self, pick: int, how_many: int, *, from_the_end: bool) -> None:
        worker = self.workers[pick % len(self.workers)]
        ids = list(worker.calls)[-how_many:] if from_the_end else list(worker.calls)[:how_many]
        calls = [worker.calls.pop(one) for one in ids]
        results = [Result(call.id, call.document, None, SECONDS[call.endpoint]) for call in calls]
        self.settle(lambda: self.plane.on_results(worker, [*results, Result(10**9, {"n": -1}, None, 0.0), *results]))

    @precondition(lambda self: self.workers)
    @rule(calls=loads, pick=picks, kind=st.sampled_from(["invalid_input", "model_failed", "not_loaded"]))
    def fail(self, calls: int, pick: int, kind: str) -> None:
        self.load(calls)
        worker = self.workers[pick % len(self.workers)]
        if worker.calls:
            call = worker.calls.pop(next(iter(worker.calls)))
            key = (call.endpoint, call.generation)
            is_news = call.id not in worker.cancelled and worker.held.get(key) is worker.sent_under[call.id]
            if kind == "not_loaded" and is_news:
                del worker.held[key]
            self.settle(lambda: self.plane.on_results(worker, [Failure(call.id, kind, "why", "trace")]))

    @precondition(lambda self: self.workers)
    @rule(pick=picks)
    def skip_cancelled(self, pick: int) -> None:
        worker = self.workers[pick % len(self.workers)]
        skipped = [one for one in worker.cancelled if one in worker.calls]
        if skipped:
            self.settle(lambda: worker.fail("cancelled", *skipped))

    # Generations

    @rule(calls=loads, endpoint=endpoints, generation=generations)
    def swap(self, calls: int, endpoint: str, generation: int) -> None:
        self.load(calls)
        before = self.served[endpoint][-1]
        for pick in range(len(self.workers)):
            self.hold(pick, endpoint, generation)
        self.flip(endpoint, generation)
        for pick in range(len(self.workers)) if before and before != generation else ():
            self.let_go(pick, endpoint, before)

    @rule(endpoint=endpoints, generation=st.sampled_from([1, 2, 3, 1, 2, 3, None]))
    def flip(self, endpoint: str, generation: int | None) -> None:
        self.served[endpoint].append(generation)
        self.settle(lambda: self.plane.serve(endpoint, generation, f"label-{generation}"))

    # Clients

    @rule(
        endpoint=endpoints,
        how_many=st.sampled_from([1, 2, 5, 12, 3 * WINDOW + QUEUE_LIMIT]),
        pinned=st.sampled_from([*[None] * 6, 1, 2, 3]),
        bad=st.sampled_from([False, False, False, True]),
        budget=st.sampled_from([*[DEADLINE_SECONDS] * 6, 0.0, 0.3, 60.0, math.nan]),
    )
    def infer(self, endpoint: str, how_many: int, pinned: int | None, bad: bool, budget: float) -> None:
        for number in range(how_many):
            self.asked += 1
            document: dict[str, Any] = {"n": self.asked}
            if bad and number == how_many // 2:
                document["bad"] = UNSENDABLE
            self.ask(endpoint, InferCall(endpoint, document, generation=pinned, budget_seconds=budget))
            if number % QUEUE_LIMIT == 0:
                self.settle()
        self.settle()

    def load(self, calls: int) -> None:
        for name in SECONDS if calls else ():
            self.infer(name, calls, None, False, DEADLINE_SECONDS)

    def ask(self, endpoint: str, call: InferCall) -> None:
        gone = asyncio.Event()
        task = self.loop.create_task(self.plane.infer(call, lambda: hung_up(gone)))
        seconds = min(DEADLINE_SECONDS, call.budget_seconds or 0.0)
        flips = len(self.served[endpoint]) - 1
        now = self.loop.time()
        asked = Asked(endpoint, call.document or {}, call.generation, now, seconds, flips, task, gone)
        task.add_done_callback(lambda _: setattr(asked, "ended", self.loop.time()))
        self.open_calls.append(asked)

    @rule(calls=loads, pick=picks)
    def cancel(self, calls: int, pick: int) -> None:
        self.load(calls)
        if not self.open_calls:
            return
        asked = self.open_calls[pick % len(self.open_calls)]
        asked.is_cancelled = True
        asked.task.cancel()
        self.settle()

    @rule(calls=loads, pick=picks)
    def hang_up(self, calls: int, pick: int) -> None:
        self.load(calls)
        if not self.open_calls:
            return
        asked = self.open_calls[pick % len(self.open_calls)]
        asked.is_cancelled = True
        asked.gone.set()
        self.settle()

    @rule(seconds=st.sampled_from([0.005, 0.06, 0.5, 1.1, 4.0]))
    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        self.look()

    # What must hold

    def settle(self, act: Callable[[], object] = lambda: None) -> None:
        self.loop.settle(act)
        self.look()

    def look(self) -> None:
        """Judge every call that has ended."""
        assert not self.loop.accidents
        for asked in [one for one in self.open_calls if one.task.done()]:
            self.open_calls.remove(asked)
            assert asked.ended <= asked.arrived + asked.seconds + 2 * SWEEP_SECONDS
            assert self.losses[asked.document["n"]] <= (2 if self.retries else 1)
            if asked.task.cancelled():
                assert asked.is_cancelled
                self.outcomes["cancelled"] += 1
            elif (error := asked.task.exception()) is not None:
                self.judge_error(asked, error)
                self.outcomes["failed or refused"] += 1
            else:
                self.judge_result(asked, asked.task.result())
                self.outcomes["handled"] += 1

    def judge_result(self, asked: Asked, result: InferResult) -> None:
        assert result.document == asked.document
        assert self.losses[asked.document["n"]] <= (1 if self.retries else 0)
        if asked.pinned is None:
            assert result.generation in self.served[asked.endpoint][asked.flips :]
            assert result.label == f"label-{result.generation}"
        else:
            assert result.generation == asked.pinned

    def judge_error(self, asked: Asked, error: BaseException) -> None:
        served = self.served[asked.endpoint]
        wanted = (asked.endpoint, asked.pinned or served[-1])
        is_held = any(wanted in worker.held for worker in self.workers)
        match error:
            case QueueFull():
                assert self.plane.statistics(asked.endpoint).queue_now >= QUEUE_LIMIT
            case UnknownEndpoint():
                assert asked.pinned is not None
                assert not is_held or asked.pinned > max(one or 0 for one in served)
            case EndpointNotReady():
                assert served[-1] is None or not is_held
            case DeadlineExceeded():
                assert asked.ended >= asked.arrived + asked.seconds
            case WorkerLost():
                assert self.losses[asked.document["n"]] == (2 if self.retries else 1)
            case InvalidInput():
                assert "bad" in asked.document or "trace" in error.trace
            case _:
                assert isinstance(error, ModelFailed)

    @invariant()
    def what_waits_is_bounded(self) -> None:
        for endpoint in self.plane._endpoints.values():
            unsent = [one for lane in endpoint.lanes for one in lane.queue if one.id == 0]
            assert len(unsent) <= QUEUE_LIMIT

    @invariant()
    def nothing_waits_beside_an_idle_worker(self) -> None:
        for endpoint in self.plane._endpoints.values():
            for lane in endpoint.lanes:
                due = [one for one in lane.queue if endpoint.name != "batched" or one.arrived < self.loop.time() - 0.02]
                if due and lane.target is not None:
                    assert all(holder.feed.load or holder.feed.reserved_for for holder in lane.target.holders)

    @invariant()
    def books_are_right(self) -> None:
        assert set(self.plane._feeds) <= set(self.workers)
        for worker, feed in self.plane._feeds.items():
            assert isinstance(worker, Worker)
            assert set(feed.sent) <= set(worker.calls)
            assert feed.load == len(feed.sent)
            assert not feed.outbox
            assert not feed.batches
            assert feed.reserved_for is None or feed.reserved_for.reserved is feed

    def teardown(self) -> None:
        try:
            self.wait(DEADLINE_SECONDS + 1)
            self.all_is_over()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.settle()
            self.loop.close()

    def all_is_over(self) -> None:
        assert not self.open_calls
        counted = [self.plane.statistics(name) for name in self.plane._endpoints]
        assert self.outcomes["handled"] == sum(one.handled for one in counted)
        assert self.outcomes["cancelled"] == sum(one.cancelled for one in counted)
        assert self.outcomes["failed or refused"] == sum(one.failed + one.refused for one in counted)
        assert not any(one.queue_now for one in counted)
        assert not self.plane._dispatcher._hungry


async def hung_up(gone: asyncio.Event) -> None:
    await gone.wait()


TestDataPlane = DataPlaneMachine.TestCase
TestDataPlane.settings = settings(
    max_examples=100, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)

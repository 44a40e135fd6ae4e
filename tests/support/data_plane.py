"""A data plane in simulated time, and what a test does with it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from contracts.inference import InferCall, InferResult
from online_gateway.dataplane.plane import DataPlane
from online_gateway.dataplane.statistics import EndpointStatistics
from tests.support.held_link import HeldLink
from tests.support.simulated_loop import SimulatedLoop

FAST, SLOW = 0.0001, 0.02
Task = asyncio.Task[InferResult]


class Scene:
    """A data plane, its sweep running."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        self.plane = DataPlane(self.loop.time)
        self.sweeper = self.loop.create_task(self.plane.run())
        self.do = self.loop.settle
        self.tasks: list[Task] = []

    def open(self, name: str = "sum", *, generation: int | None = 1, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "batch_size": 1,
            "batch_delay_seconds": 0.01,
            "queue_limit": 100,
            "deadline_seconds": 5.0,
            "retries_begun": False,
        }
        self.do(lambda: self.plane.open_endpoint(name, **(settings | changes)))
        if generation is not None:
            self.do(lambda: self.plane.serve(name, generation, f"label {generation}"))

    def worker(self, *names: str, generation: int = 1, worker_id: str = "worker") -> HeldLink:
        link = HeldLink(self.plane, worker_id)
        for name in names or ("sum",):
            self.hold(link, generation, name)
        return link

    def hold(self, link: HeldLink, generation: int, name: str = "sum") -> None:
        self.do(lambda: self.plane.add_holder(link, name, generation, "1.0"))

    def count(self, name: str = "sum") -> EndpointStatistics:
        return self.plane.statistics(name)

    def ask(self, *numbers: int, name: str = "sum", gone: Any = None, **how: Any) -> list[Task]:
        calls = [InferCall(name, {"n": number}, **how) for number in numbers]
        tasks = [self.loop.create_task(self.plane.infer(call, gone)) for call in calls]
        self.tasks += tasks
        self.do()
        return tasks

    def learn(self, link: HeldLink, seconds: float, name: str = "sum") -> None:
        """Have the endpoint known for taking so long."""
        self.ask(0, name=name)
        self.do(lambda: link.answer(seconds=seconds))

    def close(self) -> None:
        """End what is left; that a test did not look at an error is no accident."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.exception()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.do()
        self.loop.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()
    assert scene.loop.accidents == []


def numbers(link: HeldLink) -> list[int]:
    """The numbers of the calls that it has not answered."""
    return [document["n"] for document in link.documents]

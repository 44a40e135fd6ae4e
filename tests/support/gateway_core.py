"""What is behind a gateway's dialects, in the test's own event loop: worker port, pools, generations and data plane."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

import uvloop

from contracts.inference import InferCall, InferResult, SwapReport
from online_gateway.dataplane.plane import DataPlane
from online_gateway.generations.generations import Generations, Recipe
from online_gateway.notifications import Notifications
from online_gateway.repository.repository import Repository
from online_gateway.workers.pools import Pools
from online_gateway.workers.port import WorkerPort
from tests.support.scripted_worker import TOKEN, ScriptedWorker

T = TypeVar("T")
P = ParamSpec("P")

_TEST_SECONDS = 150.0


async def until(look: Callable[[], T], within: float = 20.0) -> T:
    """The first truthy answer; an AssertionError when there is none in time (seconds)."""
    end = asyncio.get_running_loop().time() + within
    while not (answer := look()):
        assert asyncio.get_running_loop().time() < end, f"not within {within} s; the last answer was {answer!r}"
        await asyncio.sleep(0.005)
    return answer


def in_an_event_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run the test in one of its own, of the kind that the gateway has."""

    @wraps(test)
    def run(*given: P.args, **named: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*given, **named), _TEST_SECONDS))

    return run


class GatewayCore:
    """``async with GatewayCore(tmp_path) as core``."""

    def __init__(
        self,
        folder: Path,
        *,
        socket: str = "workers.sock",
        swap_seconds: float = 20.0,
        silence_seconds: float = 5.0,
        **port: Any,
    ) -> None:
        self.socket = folder / socket
        self.notifications = Notifications()
        self.data_plane = DataPlane()
        self.pools = Pools(self.data_plane, self.notifications)
        self.repository = Repository(folder, most_bytes=2**30)
        self.generations = Generations(
            self.data_plane, self.pools, self.repository, swap_seconds=swap_seconds, drain_seconds=10
        )
        self.port = WorkerPort(
            TOKEN,
            self.pools,
            self.data_plane.on_results,
            gateway_id="gateway-1",
            silence_seconds=silence_seconds,
            **port,
        )
        self._workers: list[ScriptedWorker] = []
        self._sweep: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.port.listen_unix(self.socket)
        self._sweep = asyncio.create_task(self.data_plane.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._sweep is not None
        self._sweep.cancel()
        await self.generations.stop()
        await self.port.close()
        for worker in self._workers:
            worker.die()
        await asyncio.sleep(0)

    async def open(self, name: str = "vectors", pool: str | None = None, **recipe: Any) -> None:
        """Have an endpoint served."""
        self.data_plane.open_endpoint(
            name, batch_size=1, batch_delay_seconds=0, queue_limit=100, deadline_seconds=10, retries_begun=False
        )
        config = recipe.pop("config", {"entry": {}})
        await self.generations.open(Recipe(name, pool or name, "python", config, **recipe))

    async def worker(self, worker_id: str = "w-1", pool: str = "vectors", **script: Any) -> ScriptedWorker:
        """A worker that has joined."""
        worker = ScriptedWorker(worker_id, pool, **script)
        self._workers.append(worker)
        return await worker.connect(self.socket)

    async def install(self, content: bytes | None, name: str = "vectors", **rest: Any) -> SwapReport:
        """Install these bytes."""
        if content is None:
            return await self.generations.install(name, None, **rest)
        async with self.repository.staging() as staged:
            for start in range(0, len(content), 2**20):
                await staged.write(content[start : start + 2**20])
            return await self.generations.install(name, staged, **rest)

    async def call(self, name: str = "vectors", generation: int | None = None) -> InferResult:
        """One call."""
        return await self.data_plane.infer(InferCall(name, document={}, generation=generation))

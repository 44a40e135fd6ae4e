"""Fifty swaps under load on real workers: no call fails, and no answer is a mix of two generations."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil

from contracts.inference import InferResult
from service_kit.deadline import Deadline
from tests.support.gateway_core import GatewayCore, in_an_event_loop, until
from tests.support.scripted_worker import TOKEN

MODULE = """
from online_worker.endpoint import Endpoint


class Labelled(Endpoint):
    def load(self, content):
        self.label = content.read_text() if content else "first"

    def preprocess(self, inputs):
        return self.label

    def predict(self, prepared):
        return [prepared, self.label]

    def postprocess(self, prediction):
        return {"seen": [*prediction, self.label]}
"""


@contextmanager
def real_workers(core: GatewayCore, folder: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    token = folder / "token"
    token.write_text(TOKEN)
    settings = {"ONLINE_GATEWAY": f"unix://{core.socket}", "ENDPOINT": "vectors", "WORKER_TOKEN_FILE": str(token)}
    workers = [
        subprocess.Popen([sys.executable, "-m", "online_worker"], env={**os.environ, **settings}) for _ in range(count)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)


@in_an_event_loop
async def test_fifty_swaps_under_load_fail_no_call_and_mix_no_generations(tmp_path: Path) -> None:
    module = tmp_path / "labelled.py"
    module.write_text(MODULE)
    answers: list[InferResult] = []

    async def callers(core: GatewayCore, stop: asyncio.Event) -> None:
        while not stop.is_set():
            answers.append(await core.call())

    async with GatewayCore(tmp_path) as core:
        await core.open(config={"entry": {}, "module": str(module), "class": "Labelled"}, module=module)
        with real_workers(core, tmp_path, 2) as workers:
            await until(lambda: len(core.pools.members("vectors")) == 2, within=30)
            assert await core.generations.ready("vectors", Deadline(timedelta(seconds=30)))
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as load:
                for _ in range(16):
                    load.create_task(callers(core, stop))
                for number in range(10):
                    await core.install(f"weights {number}".encode(), label=f"weights {number}")
                before = sum(psutil.Process(worker.pid).memory_info().rss for worker in workers)
                for number in range(10, 50):
                    await core.install(f"weights {number}".encode(), label=f"weights {number}")
                stop.set()
            after = sum(psutil.Process(worker.pid).memory_info().rss for worker in workers)

            assert (await core.call()).label == "weights 49"
            assert after - before < 16 * 2**20

    assert len({answer.generation for answer in answers}) > 40
    assert len({answer.worker_id for answer in answers}) == 2
    for answer in answers:
        expected = answer.label or "first"
        assert answer.document == {"seen": [expected] * 3}

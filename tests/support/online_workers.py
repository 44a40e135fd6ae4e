"""Workers for the tests: one in a thread of the test, or one in a process of its own."""

import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from online_worker.config import OnlineWorkerSettings
from online_worker.loop import Ending
from online_worker.worker import Worker
from tests.support.scripted_gateway import TOKEN

_ENDS_WITHIN = 20.0
"""Seconds."""


class RunningWorker:
    """A worker in a thread."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ending: Ending | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.ending = self.worker.run()

    def wait(self) -> Ending | None:
        """Why it ended."""
        self._thread.join(_ENDS_WITHIN)
        assert not self._thread.is_alive()
        return self.ending

    def stop(self) -> Ending | None:
        """End it in order."""
        self.worker.stop()
        return self.wait()


@contextmanager
def running_worker(*gateways: str, endpoint: str = "model", **settings: Any) -> Iterator[RunningWorker]:
    """A worker of these gateways, stopped at the end."""
    given = {"call_drain_seconds": 0.0, **settings}
    with tempfile.TemporaryDirectory() as scratch:
        known = OnlineWorkerSettings(online_gateway=",".join(gateways), endpoint=endpoint, worker_token=TOKEN, **given)
        worker = RunningWorker(Worker(known, Path(scratch)))
        try:
            yield worker
        finally:
            worker.stop()


def worker_environment(gateway: str, **settings: str) -> dict[str, str]:
    """What a worker's process is told; ``settings`` are further variables."""
    return {
        **os.environ,
        "ONLINE_GATEWAY": gateway,
        "ENDPOINT": "model",
        "WORKER_TOKEN": TOKEN,
        "LOG_FORMAT": "json",
        **settings,
    }


@contextmanager
def worker_process(gateway: str, *, stderr: int | None = None, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker's process, killed at the end if it lives."""
    with subprocess.Popen(
        [sys.executable, "-m", "online_worker"], env=worker_environment(gateway, **settings), stderr=stderr
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write_module(folder: Path, code: str, name: str = "model") -> Path:
    """A Python file, with what an endpoint's module needs at its head."""
    path = folder / f"{name}.py"
    head = "import numpy as np\nfrom pathlib import Path\nfrom online_worker.endpoint import Endpoint, InvalidInput, TensorSpec\n"
    path.write_text(head + textwrap.dedent(code))
    return path

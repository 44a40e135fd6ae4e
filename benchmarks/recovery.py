"""Consumers that are killed or frozen in mid-task: how soon the task runs again, and that one result counts."""

import signal
import time
from pathlib import Path

from benchmarks.bare_container import INPUT_FILE, OUTPUT_FOLDER
from benchmarks.results import NOTHING, Findings, Row, median
from benchmarks.surroundings import POLLED, Surroundings
from contracts.task_state import TaskState
from contracts.tasks import Outcome, Step
from inference_client import InferenceClient
from tests.support.platform import Platform, Service
from tests.support.waiting import eventually

LEASE_SECONDS = 4.0
_RUN_SECONDS = 4
_MODEL = "takes-a-while"
_COMMAND = ["/bin/sh", "-c", f"sleep {_RUN_SECONDS}; cp {INPUT_FILE} {OUTPUT_FOLDER}"]
_LIMIT_SECONDS = 60.0


def measure(here: Surroundings) -> Findings:
    """Kill the consumer that runs a task while another is idle, several times; then freeze and wake some."""
    seconds: list[float] = []
    counts: list[int] = []
    refused = 0
    kills, freezes = here.effort.of(5, 1), here.effort.of(2, 1)
    with here.platform(POLLED, LEASE_SECONDS=str(LEASE_SECONDS)) as platform, platform.client() as client:
        client.add_model(_MODEL, here.make_image(_COMMAND))
        drill = _Drill(platform, client, here.small_zip)
        for _ in range(kills):
            seconds.append(drill.kill())
            counts.append(drill.commits())
        for _ in range(freezes):
            refused += drill.freeze()
            counts.append(drill.commits())
    duplicates = sum(count - 1 for count in counts)
    return Findings(
        [
            Row(
                f"recovery after SIGKILL of a consumer, lease {LEASE_SECONDS:g} s",
                f"{LEASE_SECONDS:.1f} s (the lease)",
                f"{median(seconds):.2f} s ({min(seconds):.2f} s to {max(seconds):.2f} s)",
                f"{median(seconds) - LEASE_SECONDS:+.2f} s",
            ),
            Row(
                f"results committed twice in {kills} kills and {freezes} freezes",
                NOTHING, str(duplicates), NOTHING, "0", duplicates == 0 and min(counts) == 1,
            ),
            Row("late writes of frozen consumers that were refused", NOTHING, str(refused), NOTHING),
        ]
    )  # fmt: skip


class _Drill:
    """One consumer at a time has the task; the next one is started, and idle, before the first is struck."""

    def __init__(self, platform: Platform, client: InferenceClient, zip_path: Path) -> None:
        self._platform = platform
        self._client = client
        self._zip = zip_path
        self._busy = self._start()
        self._uid = ""

    def kill(self) -> float:
        """SIGKILL the consumer of a running task; the seconds until another has claimed it."""
        idle = self._run_a_task()
        began = time.monotonic()
        self._busy.kill()
        self._await_second_claim()
        seconds = time.monotonic() - began
        self._busy = idle
        self._await_end()
        return seconds

    def freeze(self) -> int:
        """SIGSTOP it until another has finished the task, then wake it; how many of its writes were refused."""
        idle = self._run_a_task()
        self._busy.signal(signal.SIGSTOP)
        self._await_second_claim()
        self._await_end()
        self._busy.signal(signal.SIGCONT)
        refused = eventually(lambda: self._client.status(self._uid).attempts[0].refused_writes, _LIMIT_SECONDS)
        self._busy.stop()
        self._busy = idle
        return refused

    def commits(self) -> int:
        """How many attempts of the last task were recorded as its success."""
        return sum(attempt.outcome == Outcome.SUCCEEDED for attempt in self._client.status(self._uid).attempts)

    def _start(self) -> Service:
        return self._platform.start_consumer("docker", SWEEP_SECONDS="15", LOG_LEVEL="INFO")

    def _run_a_task(self) -> Service:
        """Post a task, wait until its model runs, and start the consumer that will inherit it."""
        self._uid = self._client.submit(_MODEL, self._zip)
        eventually(lambda: self._client.status(self._uid).step is Step.RUN, _LIMIT_SECONDS)
        return self._start()

    def _await_second_claim(self) -> None:
        eventually(lambda: self._client.status(self._uid).attempt == 2, _LIMIT_SECONDS)

    def _await_end(self) -> None:
        eventually(lambda: self._client.state(self._uid) is TaskState.FINISHED, _LIMIT_SECONDS)

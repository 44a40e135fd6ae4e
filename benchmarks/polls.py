"""Polls of a pending task through both services, against a bare app that answers a JSON of the same size."""

import asyncio
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.results import Findings, Row, median, times
from benchmarks.small_tasks import SmallTasks
from benchmarks.surroundings import MODEL, SHAPES, Surroundings
from contracts import routes

CONNECTIONS = 32
_LEAST_RATIO = 0.2
_THREADS = 2
_TASKS = 200
_LUA = """\
local paths = { %s }
local turn = 0
request = function()
  turn = turn %% #paths + 1
  return wrk.format(nil, paths[turn])
end
"""
"""Each request of wrk asks about another task, as a crowd of clients does."""


def measure(here: Surroundings) -> Findings:
    """Both shapes; floor and ours by turns."""
    return Findings([_one_shape(here, shape) for shape in SHAPES])


def _one_shape(here: Surroundings, shape: str) -> Row:
    seconds = here.effort.of(4, 2)
    floor: list[float] = []
    ours: list[float] = []
    with here.platform(shape) as platform, here.floor_app("answers") as (host, port):
        with platform.client() as client:
            client.add_model(MODEL, "unused:1")
        with closing(SmallTasks(platform.url, here.small_zip)) as tasks:
            paths = [routes.TASK.format(uid=tasks.post()) for _ in range(_TASKS)]
        script = here.folder / "polls.lua"
        script.write_text(_LUA % ", ".join(f'"{path}"' for path in paths))
        for _ in range(here.effort.of(3, 1)):
            floor.append(requests_per_second(host, port, paths, script, seconds))
            ours.append(requests_per_second("127.0.0.1", platform.public_port, paths, script, seconds))
    ratio = median([one / other for one, other in zip(ours, floor, strict=True)])
    return Row(
        f"polls per second, {CONNECTIONS} connections ({shape})",
        f"{median(floor):,.0f}/s",
        f"{median(ours):,.0f}/s",
        times(ratio),
        f"≥ {times(_LEAST_RATIO)}",
        ratio >= _LEAST_RATIO,
    )


def loader() -> str:
    """What makes the load here."""
    return "wrk" if shutil.which("wrk") else "an asyncio loop of the benchmark's own, for wrk is not installed"


def requests_per_second(host: str, port: int, paths: Sequence[str], script: Path, seconds: int) -> float:
    """Ask as fast as answers come, on 32 connections, for one path after the other."""
    if shutil.which("wrk") is None:
        return asyncio.run(_ask_for(host, port, paths, seconds))
    command = ["wrk", f"-t{_THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://{host}:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None:
        raise RuntimeError(f"wrk gave no rate: {said}")
    return float(rate[1])


async def _ask_for(host: str, port: int, paths: Sequence[str], seconds: float) -> float:
    end = time.monotonic() + seconds
    counts = await asyncio.gather(*(_ask(host, port, paths, end) for _ in range(CONNECTIONS)))
    return sum(counts) / seconds


async def _ask(host: str, port: int, paths: Sequence[str], end: float) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    requests = itertools.cycle(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for path in paths)
    count = 0
    try:
        while time.monotonic() < end:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            count += 1
    finally:
        writer.close()
    return count

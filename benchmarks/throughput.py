"""A queue of small tasks and one consumer, against a bare loop of containers."""

import time
from contextlib import closing

from benchmarks.bare_container import run_bare
from benchmarks.results import Findings, Row, median, times
from benchmarks.small_tasks import SmallTasks
from benchmarks.surroundings import SHAPES, Surroundings
from tests.support.platform import Platform

_LEAST_RATIO = 1.0


def measure(here: Surroundings) -> Findings:
    """Both shapes; half of the bare loop before the tasks and half after them, in each round."""
    return Findings([_one_shape(here, shape) for shape in SHAPES])


def _one_shape(here: Surroundings, shape: str) -> Row:
    count = here.effort.of(100, 20)
    floor: list[float] = []
    ours: list[float] = []
    with here.platform(shape) as platform:
        here.start_consumer(platform)
        _drain(here, platform, 3)
        for _ in range(here.effort.of(2, 1)):
            seconds = _bare_loop(here, count // 2)
            ours.append(count / _drain(here, platform, count))
            seconds += _bare_loop(here, count - count // 2)
            floor.append(count / seconds)
    ratio = median([one / other for one, other in zip(ours, floor, strict=True)])
    return Row(
        f"throughput of one consumer, {count} small tasks ({shape})",
        f"{median(floor):.2f}/s",
        f"{median(ours):.2f}/s",
        times(ratio),
        f"≥ {times(_LEAST_RATIO)}",
        ratio >= _LEAST_RATIO,
    )


def _bare_loop(here: Surroundings, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        run_bare(here.engine, here.image)
    return time.perf_counter() - began


def _drain(here: Surroundings, platform: Platform, count: int) -> float:
    """Post so many, and download all outputs; the seconds from the first post to the last output."""
    with closing(SmallTasks(platform.url, here.small_zip)) as tasks:
        began = time.perf_counter()
        uids = [tasks.post() for _ in range(count)]
        for uid in uids:
            tasks.fetch(uid)
        return time.perf_counter() - began

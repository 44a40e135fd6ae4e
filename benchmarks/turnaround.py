"""From the start of a small task's post to its output on the client's side, against a bare container."""

import time
from collections import defaultdict
from contextlib import closing

from benchmarks.bare_container import run_bare
from benchmarks.results import Detail, Findings, Row, median, milliseconds, spread
from benchmarks.small_tasks import SmallTasks
from benchmarks.surroundings import SHAPES, Surroundings
from contracts.tasks import Step
from inference_client import InferenceClient

_MOST_OVERHEAD_SECONDS = 0.040
_WARM_UP = 3
_STEPS_NOTE = (
    "Medians, as the consumer reports them: `stage` brings the input and creates the container, `run` starts it, waits "
    "and fetches its log, `collect` zips the output, `upload` sends it. The rest is the post, offer, claim, "
    "report and the download. The container is removed after the report."
)


def measure(here: Surroundings) -> Findings:
    """Both shapes of the platform; a bare container before each task."""
    found = Findings()
    steps: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        row, steps[shape] = _one_shape(here, shape)
        found.rows.append(row)
    names = [str(step) for step in Step]
    lines = [[name, *(milliseconds(steps[shape].get(name, 0)) for shape in SHAPES)] for name in [*names, "the rest"]]
    found.details.append(
        Detail(
            "Where the time of one small task goes",
            ["step", *SHAPES],
            lines,
            _STEPS_NOTE,
        )
    )
    return found


def _one_shape(here: Surroundings, shape: str) -> tuple[Row, dict[str, float]]:
    floor: list[float] = []
    ours: list[float] = []
    steps: defaultdict[str, list[float]] = defaultdict(list)
    with here.platform(shape) as platform:
        here.start_consumer(platform)
        with closing(SmallTasks(platform.url, here.small_zip)) as tasks, platform.client() as client:
            for number in range(_WARM_UP + here.effort.of(40, 10)):
                bare = run_bare(here.engine, here.image)
                began = time.perf_counter()
                uid = tasks.post()
                tasks.fetch(uid)
                seconds = time.perf_counter() - began
                _settle(here)
                if number >= _WARM_UP:
                    floor.append(bare)
                    ours.append(seconds)
                    _add_steps(client, uid, seconds, steps)
    overhead = median(ours) - median(floor)
    row = Row(
        f"turnaround of one small task ({shape})",
        spread(floor),
        spread(ours),
        f"{overhead * 1000:+.0f} ms",
        f"≤ floor + {milliseconds(_MOST_OVERHEAD_SECONDS)}",
        overhead <= _MOST_OVERHEAD_SECONDS,
    )
    return row, {name: median(values) for name, values in steps.items()}


def _settle(here: Surroundings) -> None:
    """Wait until the task's container is gone, so that its removal does not burden the next bare one."""
    end = time.monotonic() + 10
    while here.engine.api.containers(all=True, filters={"ancestor": here.image}) and time.monotonic() < end:
        time.sleep(0.005)


def _add_steps(client: InferenceClient, uid: str, seconds: float, steps: defaultdict[str, list[float]]) -> None:
    known = client.status(uid).attempts[-1].step_seconds
    for step, length in known.items():
        steps[str(step)].append(length)
    steps["the rest"].append(seconds - sum(known.values()))

"""Calls per second and their latency: ours against the floor and against other servers, by turns."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.online import load, systems
from benchmarks.online.systems import RIVALS, TENSORS, Rival, Target
from benchmarks.results import Detail, Effort, Findings, Row, median, milliseconds, times
from tests.support.online import OnlinePlatform

CONNECTIONS = 64
WORKERS = 2
FLOOR = "floor: inside a bare uvicorn app"
OURS = "InferenceServer, /run"
OURS_TENSORS = "InferenceServer, /v2 with JSON tensors"
_LEAST_OF_FLOOR = 0.7
_MOST_OVER_FLOOR_SECONDS = 1e-4
_LEAST_OF_RIVALS = 10.0
_RUN = '{"SIGNATURE":"sum","a":1.5,"b":2}'


@dataclass
class Rounds:
    """What the rounds of one system gave."""

    per_second: list[float]
    median_seconds: list[float]


def measure(effort: Effort, folder: Path) -> tuple[Findings, Mapping[str, float]]:
    """The findings, and calls per second by system for the picture."""
    versions = {rival.name: f"{rival.name} {rival.install()}" for rival in RIVALS}
    found: dict[str, Rounds] = {}
    for _ in range(effort.of(3, 1)):
        with systems.floor(folder) as floor:
            _round(found, FLOOR, floor, effort, folder)
        with ours(folder) as (run, tensors):
            _round(found, OURS, run, effort, folder)
            _round(found, OURS_TENSORS, tensors, effort, folder)
        for rival in RIVALS:
            with rival.started(folder) as target:
                _round(found, versions[rival.name], target, effort, folder)
    rows = [_against_floor(found), _latency(found), *(_against(rival, versions, found) for rival in RIVALS)]
    return Findings(rows, [_all_rounds(found)]), {name: median(rounds.per_second) for name, rounds in found.items()}


@contextmanager
def ours(folder: Path) -> Iterator[tuple[Target, Target]]:
    """A gateway and two workers, each a process, as they are shipped; the two routes that are asked."""
    place = folder / "ours"
    place.mkdir(exist_ok=True)
    module = Path(__file__).with_name("sum_endpoint.py")
    endpoint = {"NR_WORKERS": WORKERS, "MODULE": str(module), "SERVER_CLASS": "Sum"}
    platform: AbstractContextManager[OnlinePlatform] = OnlinePlatform(place, {"sum": endpoint})
    with platform as started:
        run = Target(f"{started.url}/run", _RUN)
        tensors = Target(f"{started.url}/v2/models/sum/infer", TENSORS)
        systems.await_sum(run)
        systems.await_sum(tensors)
        yield run, tensors


def _round(found: dict[str, Rounds], name: str, target: Target, effort: Effort, folder: Path) -> None:
    seconds = effort.of(5, 1)
    load.post(target, CONNECTIONS, 1, folder)
    many = load.post(target, CONNECTIONS, seconds, folder)
    one = load.post(target, 1, seconds, folder)
    rounds = found.setdefault(name, Rounds([], []))
    rounds.per_second.append(many.per_second)
    rounds.median_seconds.append(one.median_seconds)


def _against_floor(found: Mapping[str, Rounds]) -> Row:
    floor, mine = found[FLOOR].per_second, found[OURS].per_second
    ratio = median([one / other for one, other in zip(mine, floor, strict=True)])
    return Row(
        f"calls per second, {CONNECTIONS} connections, {WORKERS} workers",
        _rate(floor),
        _rate(mine),
        times(ratio),
        f"≥ {times(_LEAST_OF_FLOOR)}",
        ratio >= _LEAST_OF_FLOOR,
    )


def _latency(found: Mapping[str, Rounds]) -> Row:
    floor, mine = found[FLOOR].median_seconds, found[OURS].median_seconds
    over = median([one - other for one, other in zip(mine, floor, strict=True)])
    return Row(
        "median latency, 1 connection",
        milliseconds(median(floor)),
        milliseconds(median(mine)),
        f"{'+' if over >= 0 else '-'}{milliseconds(abs(over))}",
        f"≤ floor + {milliseconds(_MOST_OVER_FLOOR_SECONDS)}",
        over <= _MOST_OVER_FLOOR_SECONDS,
    )


def _against(rival: Rival, versions: Mapping[str, str], found: Mapping[str, Rounds]) -> Row:
    name = versions[rival.name]
    ours_is = OURS_TENSORS if rival.body == TENSORS else OURS
    theirs, mine = found[name].per_second, found[ours_is].per_second
    ratio = median(mine) / median(theirs)
    return Row(
        f"calls per second against {name}",
        _rate(theirs),
        _rate(mine),
        times(ratio),
        f"≥ {times(_LEAST_OF_RIVALS)}",
        ratio >= _LEAST_OF_RIVALS,
    )


def _rate(rounds: list[float]) -> str:
    return f"{median(rounds):,.0f}/s"


def _all_rounds(found: Mapping[str, Rounds]) -> Detail:
    lines = [
        (
            name,
            ", ".join(f"{rate:,.0f}" for rate in rounds.per_second),
            ", ".join(milliseconds(seconds) for seconds in rounds.median_seconds),
        )
        for name, rounds in found.items()
    ]
    head = ("system", f"calls/s at {CONNECTIONS} connections, by round", "median at 1 connection, by round")
    return Detail("Every round of the sum", head, lines)

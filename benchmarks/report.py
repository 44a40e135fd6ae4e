"""Prints the findings, and writes them as a page of the documentation."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.polls import loader
from benchmarks.results import NOTHING, Detail, Findings, Row

_HEAD = ("what", "floor", "ours", "compared", "target", "reached")

_INTRODUCTION = """\
# Performance

Each number of ours stands beside a floor that was measured in the same run, by turns with it: the ratio is what a
reader may rely on, the absolute times are this machine's. Durations are medians with the middle half in brackets. The
first half of this page is written by `make bench`, the second by `make bench-online`; nothing in it is edited by hand.
"""
_BATCH_TITLE = "## The batch path\n"
_ONLINE_TITLE = "## The online path\n"

_ONLINE = """\
![Calls per second at 64 connections](../images/online_calls.svg)

The floor is the same sum inside one bare raw-ASGI process under uvicorn. Ours is a gateway and two worker processes,
each call a frame to a worker and back; the others stand in virtual environments of their own, with two workers each, as
their documentation starts them. All share the cores with wrk, which makes the load; systems are measured by turns.

For the networks the floor is onnxruntime on one thread in the measuring process. Ours is the public Triton client with
binary tensors, through the gateway, to one worker with one thread, and back; one call at a time. Raw tensors are many
bytes for little work: a row of iris is 36 bytes for 20 nanoseconds, and the client and uvicorn alone, with nothing
behind them, take longer than a tenth of what the detector computes on its 9 MB. A page is sent as the file it is, and
its floor is the example's class, called in the measuring process.
"""

_FLOORS = """\
### What the floors are

* **Turnaround and throughput**: one container of the same image through the Docker SDK, create, start, wait, remove,
  with no network, and no volumes, limits or log. Ours is everything between the first byte of the post and the last
  byte of the output, on a kept connection, with `?wait=`: both APIs, the database flushed to disk, the broker, one
  consumer with the docker runner, unpacking and zipping, and a container with volumes, limits and an init process.
  Throughput counts from the first post to the last output.
* **Transfers**: bare raw-ASGI apps under uvicorn. The one writes each body to a file, without a flush, a hash or a
  check; ours relays it, hashes it, checks the archive and answers only once the disk has it. The other answers with
  Starlette's `FileResponse` in reads of 1 MiB, as ours does; its usual 64 KiB are four times slower, and would flatter
  ours. Same client, same file: one stored zip of random bytes. Memory is sampled every 10 ms.
* **Polls**: a bare raw-ASGI app under uvicorn that answers a constant JSON. Ours asks the database anew for each
  answer, and goes through two processes. The load comes from {loader}, on the same cores.
* **Table size**: the same request to the same service with a thousand tasks in its table, every second one pending.
* **Recovery**: the lease, which must lapse before a consumer may be taken for dead. A heartbeat comes four times per
  lease, so that between three quarters and all of it are left at the kill. Counted until another consumer has claimed
  the task.
"""

_REPEAT = """\
### How to repeat it

`make bench` measures all of it and rewrites this page. `python -m benchmarks --only polls` measures one part, `--quick`
measures briefly; both only print.
"""

_MOMENT = """\
Measured on {day} by `{command}` in {minutes:.1f} minutes. The load average of the last minute was {before:.1f} before
and {after:.1f} after; the benchmarks are part of the latter.
"""


def show(findings: Findings, console: Console) -> None:
    """Print the tables."""
    table = Table(*_HEAD)
    for row in findings.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for detail in findings.details:
        console.print(_as_table(detail))


def write(path: Path, findings: Findings, loads: tuple[float, float], seconds: float) -> None:
    """Write the page; ``loads`` are the load averages before and after."""
    day = datetime.now(UTC).date().isoformat()
    parts = [
        _BATCH_TITLE,
        _markdown(_HEAD, [_cells(row) for row in findings.rows]),
        *map(_section, findings.details),
        _FLOORS.format(loader=loader()),
        "### The machine\n",
        _markdown(("part", "here"), machine.description()),
        _MOMENT.format(day=day, command="make bench", minutes=seconds / 60, before=loads[0], after=loads[1]),
        _REPEAT,
    ]
    _, online = _halves(path)
    path.write_text("\n".join([_INTRODUCTION, *parts, online]), encoding="utf-8")


def write_online(path: Path, findings: Findings, loads: tuple[float, float], seconds: float) -> None:
    """Write the page's second half, whose picture lies beside the documentation's others."""
    day = datetime.now(UTC).date().isoformat()
    parts = [
        _ONLINE_TITLE,
        _markdown(_HEAD, [_cells(row) for row in findings.rows]),
        _ONLINE,
        *map(_section, findings.details),
        _MOMENT.format(day=day, command="make bench-online", minutes=seconds / 60, before=loads[0], after=loads[1]),
    ]
    batch, _ = _halves(path)
    path.write_text(f"{_INTRODUCTION}\n{batch}" + "\n".join(parts), encoding="utf-8")


def _halves(path: Path) -> tuple[str, str]:
    """What the page says of the batch path and of the online path, each from its title on; '' where it says nothing."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, online = text.partition(_ONLINE_TITLE)
    _, title, batch = before.partition(_BATCH_TITLE)
    return title + batch, found + online


def _section(detail: Detail) -> str:
    return f"### {detail.title}\n\n{_markdown(detail.head, detail.lines)}\n{detail.note}\n"


def _cells(row: Row) -> tuple[str, ...]:
    reached = {True: "yes", False: "**no**", None: NOTHING}[row.reached]
    return (row.what, row.floor, row.ours, row.compared, row.target, reached)


def _as_table(detail: Detail) -> Table:
    table = Table(*detail.head, title=detail.title)
    for line in detail.lines:
        table.add_row(*line)
    return table


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"

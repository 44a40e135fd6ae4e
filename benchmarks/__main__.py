"""``python -m benchmarks``: measure, print, and publish when everything was measured in full."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from rich.console import Console

from benchmarks import machine, polls, recovery, report, table_size, throughput, transfers, turnaround
from benchmarks.results import Effort, Findings
from benchmarks.surroundings import Surroundings
from service_kit import logging

PAGE = Path(__file__).parent.parent / "documentation" / "reference" / "performance.md"

MEASUREMENTS: dict[str, Callable[[Surroundings], Findings]] = {
    "turnaround": turnaround.measure,
    "throughput": throughput.measure,
    "transfers": transfers.measure,
    "polls": polls.measure,
    "table_size": table_size.measure,
    "recovery": recovery.measure,
}


@click.command()
@click.option("--only", type=click.Choice(list(MEASUREMENTS)), multiple=True, help="Measure this; repeatable.")
@click.option("--quick", is_flag=True, help="Measure briefly: shows that everything runs, and publishes nothing.")
def main(only: tuple[str, ...], *, quick: bool) -> None:
    """Measure the platform against floors in the same run; a full run rewrites the page of numbers."""
    logging.configure("benchmarks", "WARNING", "text")
    console = Console(width=None if sys.stdout.isatty() else 180)
    load, began = machine.load(), time.monotonic()
    found = Findings()
    with Surroundings(Effort(is_quick=quick)) as here:
        for name in only or MEASUREMENTS:
            console.print(f"{name} … (load average {machine.load():.2f})")
            measured = _measured(name, here)
            report.show(measured, console)
            found.add(measured)
        seconds = time.monotonic() - began
        if not only and not quick:
            report.write(PAGE, found, (load, machine.load()), seconds)
            console.print(f"written to {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    console.print(f"{seconds:.0f} s, load average {machine.load():.2f}")


def _measured(name: str, here: Surroundings) -> Findings:
    """The findings; ends the run with one line where a server is missing."""
    try:
        return MEASUREMENTS[name](here)
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        raise SystemExit(f"{name} cannot be measured here: {missing}") from None


if __name__ == "__main__":
    main()

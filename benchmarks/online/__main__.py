"""``python -m benchmarks.online``: measure, print, and publish when everything was measured in full."""

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console

from benchmarks import machine, report
from benchmarks.online import calls, networks
from benchmarks.online.picture import bars
from benchmarks.online.systems import RivalMissing
from benchmarks.results import Effort, Findings

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
PAGE = DOCUMENTATION / "reference" / "performance.md"
PICTURE = DOCUMENTATION / "images" / "online_calls.svg"


@click.command()
@click.option("--only", type=click.Choice(["calls", "networks"]), default=None, help="Measure this alone.")
@click.option("--quick", is_flag=True, help="Measure briefly: shows that everything runs, and publishes nothing.")
def main(only: str | None, *, quick: bool) -> None:
    """Measure the online path; a full run rewrites its part of the page of numbers, and the picture."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    effort, load, began = Effort(is_quick=quick), machine.load(), time.monotonic()
    found = Findings()
    rates: Mapping[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-online-") as folder:
        try:
            if only != "networks":
                found, rates = calls.measure(effort, Path(folder))
            if only != "calls":
                found.add(networks.measure(effort, Path(folder)))
        except RivalMissing as missing:
            raise SystemExit(str(missing)) from None
    report.show(found, console)
    seconds = time.monotonic() - began
    if only is None and not quick:
        PICTURE.write_text(bars("Calls per second, 64 connections, 2 workers", rates, "InferenceServer"))
        report.write_online(PAGE, found, (load, machine.load()), seconds)
    console.print(f"{seconds:.0f} s, load average {machine.load():.2f}")


if __name__ == "__main__":
    main()

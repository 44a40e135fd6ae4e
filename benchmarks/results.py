"""What a measurement gives: rows that compare ours with a floor, tables that explain them, and their arithmetic."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

NOTHING = "\N{EN DASH}"
"""An empty cell."""


@dataclass(frozen=True)
class Row:
    """One comparison, worded for the published table; ``reached`` is None where no target was set."""

    what: str
    floor: str
    ours: str
    compared: str
    target: str = NOTHING
    reached: bool | None = None


@dataclass(frozen=True)
class Detail:
    """A table that explains rows."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str = ""


@dataclass
class Findings:
    """All that one measurement found."""

    rows: list[Row] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)

    def add(self, more: "Findings") -> None:
        """Take over what another measurement found."""
        self.rows += more.rows
        self.details += more.details


@dataclass(frozen=True)
class Effort:
    """How long to measure: ``full`` for publishing, ``quick`` to see that everything runs."""

    is_quick: bool

    def of(self, full: int, quick: int) -> int:
        """The count for this effort."""
        return quick if self.is_quick else full


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    return statistics.median(values)


def milliseconds(seconds: float) -> str:
    """For a table, as precise as the size allows."""
    value = seconds * 1000
    return f"{value:.0f} ms" if abs(value) >= 100 else f"{value:.1f} ms" if abs(value) >= 10 else f"{value:.2f} ms"


def spread(values: Sequence[float]) -> str:
    """Median and the middle half of durations in seconds."""
    if len(values) < 4:
        return milliseconds(median(values))
    low, _, high = statistics.quantiles(values, n=4)
    return f"{milliseconds(median(values))} ({milliseconds(low)} to {milliseconds(high)})"


def times(ratio: float) -> str:
    """A ratio for a table."""
    return f"{ratio:.2f} \N{MULTIPLICATION SIGN}"

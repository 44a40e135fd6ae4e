"""How a command tells of its progress: a live display on a terminal, lines elsewhere, nothing for programs."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Protocol

from contracts.tasks import TaskStatus
from inference_client.cli.endings import printable
from inference_client.cli.quantities import show_size
from inference_client.cli.sentences import doing
from inference_client.errors import ClientError
from inference_client.uploading import OnProgress


class Report(Protocol):
    """Follows one task from the upload to the download."""

    def passing(self, label: str) -> AbstractContextManager[OnProgress]:
        """Bytes pass, up or down."""

    def watching(self) -> AbstractContextManager[None]:
        """The task is waited for; statuses and troubles come meanwhile."""

    def posted(self, uid: str) -> None:
        """The task exists."""

    def status(self, status: TaskStatus) -> None:
        """Where the task stands now."""

    def trouble(self, error: ClientError) -> None:
        """A failure that is survived."""


def report_for(as_json: bool) -> Report:
    """The report that fits where stderr goes."""
    if as_json:
        return SilentReport()
    if sys.stderr.isatty():
        from inference_client.cli.terminal import TerminalReport

        return TerminalReport()
    return PlainReport(sys.stderr)


class SilentReport:
    """For programs: the result alone counts."""

    @contextmanager
    def passing(self, label: str) -> Iterator[OnProgress]:  # noqa: ARG002
        """Say nothing."""
        yield lambda _passed, _total: None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say nothing."""
        yield

    def posted(self, uid: str) -> None:
        """Say nothing."""

    def status(self, status: TaskStatus) -> None:
        """Say nothing."""

    def trouble(self, error: ClientError) -> None:
        """Say nothing."""


class PlainReport:
    """Lines for log files: one per change."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._last = ""

    @contextmanager
    def passing(self, label: str) -> Iterator[OnProgress]:
        """One line at the end, with the size."""
        passed = 0

        def count(so_far: int, _: int | None) -> None:
            nonlocal passed
            passed = so_far

        yield count
        self._say(f"{label}: {show_size(passed)}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Nothing of its own."""
        yield

    def posted(self, uid: str) -> None:
        """The uid."""
        self._say(f"task {uid}")

    def status(self, status: TaskStatus) -> None:
        """One line per change."""
        self._say(doing(status))

    def trouble(self, error: ClientError) -> None:
        """One line, until another trouble comes."""
        self._say(f"trying again: {error.message}")

    def _say(self, sentence: str) -> None:
        if sentence != self._last:
            self._last = sentence
            print(printable(sentence), file=self._out, flush=True)

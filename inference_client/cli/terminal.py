"""The live display on a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.status import Status
from rich.text import Text

from contracts.task_state import TaskState
from contracts.tasks import TaskStatus
from inference_client.cli.endings import printable
from inference_client.cli.quantities import show_duration
from inference_client.cli.sentences import doing, run_seconds
from inference_client.errors import ClientError
from inference_client.uploading import OnProgress


class TerminalReport:
    """Bars for bytes that pass, a spinner with the task's sentence while it is waited for; all on stderr."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._spinner: Status | None = None
        self._began = time.monotonic()

    @contextmanager
    def passing(self, label: str) -> Iterator[OnProgress]:
        """A bar with size, speed and time left."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task(label, total=None)
            yield lambda passed, total: progress.update(bar, completed=passed, total=total)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A spinner."""
        self._began = time.monotonic()
        with self._console.status(Text("waiting")) as self._spinner:
            yield
        self._spinner = None

    def posted(self, uid: str) -> None:
        """The uid."""
        self._console.print(Text(f"task {uid}"), soft_wrap=True)

    def status(self, status: TaskStatus) -> None:
        """The sentence behind the spinner; the last one stays."""
        if status.state.is_final:
            self._console.print(Text(printable(doing(status))))
            return
        seconds = run_seconds(status) if status.state is TaskState.RUNNING else time.monotonic() - self._began
        took = f" · {show_duration(timedelta(seconds=seconds))}" if seconds is not None else ""
        self._show(doing(status) + took)

    def trouble(self, error: ClientError) -> None:
        """Behind the spinner, until the next status."""
        self._show(f"trying again: {error.message}")

    def _show(self, sentence: str) -> None:
        if self._spinner is not None:
            self._spinner.update(Text(printable(sentence)))

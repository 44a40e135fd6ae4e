"""From a posted task to its output on this disk: what ``infer run`` and ``infer tasks get`` share."""

import json
import shlex
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from contracts.tasks import TaskStatus
from inference_client.cli.invocation import Invocation
from inference_client.cli.reports import Report
from inference_client.cli.sentences import run_seconds
from inference_client.unpacking import is_free, unpack

if TYPE_CHECKING:
    from inference_client.client import InferenceClient


@dataclass(frozen=True)
class Destination:
    """Where an output goes: a ``.zip`` file, or a folder that it is unpacked into."""

    path: Path

    @property
    def is_zip(self) -> bool:
        """Whether the zip is kept as it is."""
        return self.path.suffix.lower() == ".zip" and not self.path.is_dir()

    def check(self) -> None:
        """Look before anything is posted, for it would be a pity afterwards.

        Raises
        ------
        click.UsageError
            The folder is not empty, or there is none to write into.
        """
        if not self.is_zip and not is_free(self.path):
            raise click.UsageError(f"{self.path} exists and is not an empty folder; name another one, or a .zip file.")
        if not self.path.absolute().parent.is_dir():
            raise click.UsageError(f"{self.path.absolute().parent} is no folder; make it first.")


def go_on_with(invocation: Invocation, uid: str, destination: Destination | None) -> None:
    """Remember the task in hand, and the command that goes on with it."""
    invocation.uid = uid
    to = f" -o {shlex.quote(str(destination.path))}" if destination else ""
    invocation.go_on = f"infer tasks get {uid}{to}{invocation.server_options()}"


def watch(client: "InferenceClient", uid: str, timeout: timedelta, report: Report) -> TaskStatus:
    """Wait for the end, telling what happens."""
    with report.watching():
        return client.wait(uid, timeout, on_status=report.status, on_trouble=report.trouble)


def deliver(client: "InferenceClient", uid: str, destination: Destination, report: Report) -> None:
    """Fetch the output to its place."""
    if destination.is_zip:
        with report.passing("output") as progress:
            client.download(uid, destination.path, progress)
        return
    folder = destination.path.absolute()
    with TemporaryDirectory(prefix=".infer-", dir=folder.parent) as temporary:
        archive = Path(temporary) / "output.zip"
        with report.passing("output") as progress:
            client.download(uid, archive, progress)
        unpack(archive, folder)


def tell_done(invocation: Invocation, uid: str, status: TaskStatus, destination: Destination) -> None:
    """The result on stdout: the place of the output, or all that is known as JSON."""
    if not invocation.as_json:
        click.echo(destination.path)
        return
    done = {
        "ok": True,
        "uid": uid,
        "output": str(destination.path),
        "run_seconds": run_seconds(status),
        "status": status.model_dump(mode="json"),
    }
    click.echo(json.dumps(done))

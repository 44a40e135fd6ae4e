"""``infer run``: files to a model and its output back, in one command."""

import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inference_client.cli.invocation import Invocation
from inference_client.cli.options import duration
from inference_client.cli.server_options import Interrupted, with_server

if TYPE_CHECKING:
    from inference_client.cli.reports import Report
    from inference_client.client import InferenceClient


@click.command("run", short_help="Send files to a model, wait, and fetch what it makes of them.")
@click.argument("model")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .zip file, or a folder to unpack into (new or empty). [default: MODEL-output.zip]",
)
@click.option(
    "--timeout", type=duration, metavar="DURATION", default="24h", show_default=True, help="How long to wait in all."
)
@click.option("--detach", is_flag=True, help="Post the task, print its uid, and do not wait.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels the task; otherwise it goes on.")
@with_server
def run(
    invocation: Invocation,
    model: str,
    inputs: tuple[Path, ...],
    output: Path | None,
    timeout: timedelta,
    detach: bool,
    cancel_on_interrupt: bool,
) -> None:
    """Send INPUT... to MODEL, wait, and fetch its output.

    One .zip file is sent as it is, one folder as a zip of its content, anything else as a zip of these files.
    Ctrl-C ends the waiting, not the task: what is printed then says how to go on.
    """
    from inference_client.cli.delivery import Destination, deliver, go_on_with, tell_done, watch
    from inference_client.cli.reports import report_for

    destination = Destination(output or Path(f"{model}-output.zip"))
    if not detach:
        destination.check()
    report = report_for(invocation.as_json)
    with invocation.client() as client:
        uid = _post(client, invocation, model, inputs, report)
        go_on_with(invocation, uid, destination)
        if detach:
            click.echo(json.dumps({"ok": True, "uid": uid}) if invocation.as_json else uid)
            return
        report.posted(uid)
        try:
            status = watch(client, uid, timeout, report)
            deliver(client, uid, destination, report)
        except KeyboardInterrupt as error:
            raise _interrupted(client, invocation, uid, cancel_on_interrupt) from error
    tell_done(invocation, uid, status, destination)


def _post(
    client: "InferenceClient", invocation: Invocation, model: str, inputs: tuple[Path, ...], report: "Report"
) -> str:
    from inference_client.cli.history import remember
    from inference_client.packing import packed

    sent_whole = False

    try:
        with packed(inputs) as package, report.passing("input") as progress:

            def watch_end(passed: int, total: int | None) -> None:
                nonlocal sent_whole
                sent_whole = passed == total
                progress(passed, total)

            uid = client.submit(model, package, watch_end)
    except KeyboardInterrupt as error:
        fate = "its answer had not come: the task may exist" if sent_whole else "no task was made"
        raise Interrupted(f"interrupted before the task was posted; {fate}.") from error
    remember(uid, invocation.url, model)
    return uid


def _interrupted(client: "InferenceClient", invocation: Invocation, uid: str, cancel: bool) -> Interrupted:
    from inference_client.errors import RequestRefused, TaskNotFound

    if not cancel:
        return Interrupted(f"interrupted; task {uid} goes on.")
    with suppress(RequestRefused, TaskNotFound):  # it was over just before: as good as cancelled
        client.cancel(uid)
    invocation.go_on = None
    return Interrupted(f"interrupted; task {uid} is cancelled.")

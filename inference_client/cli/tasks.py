"""``infer tasks``: what became of tasks that were posted earlier."""

import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inference_client.cli.invocation import Invocation
from inference_client.cli.options import duration
from inference_client.cli.server_options import with_server

if TYPE_CHECKING:
    from contracts.tasks import TaskStatus
    from inference_client.cli.history import PostedTask

_SHOWN_OF_A_UID = 12
_DASHED_UID = re.compile(r"-[\w-]{42}", re.ASCII)
_TIME = "%Y-%m-%d %H:%M:%S"


class TaskCommand(click.Command):
    """Takes a uid that begins with a dash, as one in 64 does, for what it is: no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put such uids behind the mark that ends the options."""
        uids = [] if "--" in args else [arg for arg in args if _is_dashed_uid(arg)]
        if uids:
            args = [*(arg for arg in args if arg not in uids), "--", *uids]
        return super().parse_args(ctx, args)


def _is_dashed_uid(argument: str) -> bool:
    from inference_client.cli.history import is_known

    if _DASHED_UID.fullmatch(argument):
        return True
    return argument.startswith("-") and len(argument) >= _SHOWN_OF_A_UID and is_known(argument)


@click.group(short_help="Status, log, output, cancelling and removal of tasks.")
def tasks() -> None:
    """Tasks, named by their uid; the beginning of one is enough for those posted from this machine."""


@tasks.command("status", cls=TaskCommand)
@click.argument("uid")
@with_server
def status(invocation: Invocation, uid: str) -> None:
    """State, place in the queue, attempts, timings, error."""
    uid = _whole(invocation, uid)
    with invocation.client() as client:
        answer = client.status(uid)
    if invocation.as_json:
        _print_json(uid, status=answer.model_dump(mode="json"))
        return
    _print_status(answer)


@tasks.command("logs", cls=TaskCommand)
@click.argument("uid")
@with_server
def logs(invocation: Invocation, uid: str) -> None:
    """The end of what the model wrote to stdout and stderr."""
    from inference_client.cli.endings import printable

    uid = _whole(invocation, uid)
    with invocation.client() as client:
        log = client.logs(uid)
    if invocation.as_json:
        _print_json(uid, log=log)
        return
    click.echo(printable(log) if sys.stdout.isatty() else log, nl=not log.endswith("\n"))


@tasks.command("get", cls=TaskCommand)
@click.argument("uid")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .zip file, or a folder to unpack into (new or empty). [default: UID-output.zip, with the uid's beginning]",
)
@click.option(
    "--timeout", type=duration, metavar="DURATION", default="24h", show_default=True, help="How long to wait in all."
)
@click.option("--no-wait", is_flag=True, help="End with status 5 when the task is not over.")
@with_server
def get(invocation: Invocation, uid: str, output: Path | None, timeout: timedelta, no_wait: bool) -> None:
    """Wait for the end of a task and fetch its output."""
    from inference_client.cli.delivery import Destination, deliver, go_on_with, tell_done, watch
    from inference_client.cli.reports import report_for

    uid = _whole(invocation, uid)
    destination = Destination(output or Path(f"{uid[:_SHOWN_OF_A_UID]}-output.zip"))
    destination.check()
    go_on_with(invocation, uid, destination)
    report = report_for(invocation.as_json)
    with invocation.client() as client:
        last = client.status(uid) if no_wait else watch(client, uid, timeout, report)
        deliver(client, uid, destination, report)
    tell_done(invocation, uid, last, destination)


@tasks.command("cancel", cls=TaskCommand)
@click.argument("uid")
@with_server
def cancel(invocation: Invocation, uid: str) -> None:
    """Call a task off; its record stays."""
    uid = _whole(invocation, uid)
    with invocation.client() as client:
        client.cancel(uid)
    _print_done(invocation, uid, "cancelled")


@tasks.command("delete", cls=TaskCommand)
@click.argument("uid")
@with_server
def delete(invocation: Invocation, uid: str) -> None:
    """Remove a task with its files; one that still lives is cancelled first."""
    from inference_client.cli.history import forget

    uid = _whole(invocation, uid)
    with invocation.client() as client:
        client.delete(uid)
    forget({uid})
    _print_done(invocation, uid, "deleted")


@tasks.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest so many.")
@with_server
def list_(invocation: Invocation, limit: int) -> None:
    """Tasks posted from this machine to this server, newest first.

    A uid is a secret and the server lists none: this list is a file of yours, below XDG_STATE_HOME.
    """
    from inference_client.cli.history import forget, posted_to
    from inference_client.errors import TaskNotFound

    known: list[tuple[PostedTask, TaskStatus]] = []
    gone: set[str] = set()
    with invocation.client() as client:
        for task in posted_to(invocation.url)[:limit]:
            try:
                known.append((task, client.status(task.uid)))
            except TaskNotFound:
                gone.add(task.uid)
    forget(gone)
    if invocation.as_json:
        rows = [
            {"uid": task.uid, "model": task.model, "posted_at": task.posted_at, "state": answer.state.value}
            for task, answer in known
        ]
        click.echo(json.dumps({"ok": True, "tasks": rows}))
        return
    _print_list(known)


def _print_list(known: "list[tuple[PostedTask, TaskStatus]]") -> None:
    from inference_client.cli.sentences import doing, table

    rows = [
        (task.uid[:_SHOWN_OF_A_UID], task.model, task.posted_at[:16].replace("T", " "), doing(answer))
        for task, answer in known
    ]
    click.echo(table(("UID", "MODEL", "POSTED (UTC)", "STATE"), rows) if rows else "No tasks were posted from here.")


def _print_status(answer: "TaskStatus") -> None:
    from inference_client.cli.endings import printable
    from inference_client.cli.quantities import show_duration
    from inference_client.cli.sentences import doing

    lines = [printable(doing(answer)), f"model    {answer.model}", f"posted   {answer.created_at:{_TIME}} UTC"]
    if answer.ended_at is not None:
        lines.append(f"ended    {answer.ended_at:{_TIME}} UTC")
    if answer.exit_code is not None:
        lines.append(f"exit     {answer.exit_code}")
    for attempt in answer.attempts:
        took = {step.value: show_duration(timedelta(seconds=each)) for step, each in attempt.step_seconds.items()}
        steps = ", ".join(f"{step} {duration}" for step, duration in took.items())
        outcome = f"{attempt.outcome or 'running'}" + (f" ({attempt.reason})" if attempt.reason else "")
        lines.append(printable(f"attempt  {attempt.number}: {outcome}" + (f"; {steps}" if steps else "")))
    click.echo("\n".join(lines))


def _print_json(uid: str, **fields: object) -> None:
    click.echo(json.dumps({"ok": True, "uid": uid, **fields}))


def _print_done(invocation: Invocation, uid: str, what: str) -> None:
    if invocation.as_json:
        _print_json(uid, done=what)
    else:
        click.echo(what)


def _whole(invocation: Invocation, uid: str) -> str:
    from inference_client.cli.history import whole_uid

    invocation.uid = whole_uid(uid, invocation.url)
    return invocation.uid

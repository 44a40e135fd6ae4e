"""The commands: ``infer admin …``, and in a container ``python -m private_api.admin …``.

Only ``backup -`` and ``installation`` write to stdout; all else that is said goes to stderr. The exit status is 0 when
all is done, 1 when it is not, 2 for wrong usage or configuration. Modules of substance are imported once needed.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO, ParamSpec

import click

if TYPE_CHECKING:
    from private_api.admin.archive_format import Manifest
    from private_api.admin.target import Target

P = ParamSpec("P")

_STREAM = "-"
_KIB = 1024

_data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="The folder of an 'infer up'; without it DATABASE_URL (or DATABASE_URL_FILE) and DATA_DIR say what is meant.",
)
_source = click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def admin() -> None:
    """Back up a platform while it runs, check backups, restore them."""


def _ending_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """Errors of the platform and of files become one line and exit status 1; SIGTERM lets the command tidy up."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        from contracts.errors import PlatformError
        from service_kit.logging import configure

        configure("private_api.admin", "WARNING")
        context = click.get_current_context()
        previous = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            command(*args, **kwargs)
        except PlatformError as error:
            said = error.message
        except BrokenPipeError:
            said = "the program that takes the backup has ended."
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        else:
            return
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        click.echo(f"{context.find_root().info_name}: {said}", err=True)
        context.exit(1)

    return wrapped


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


@admin.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_data
@_ending_in_one_line
def backup(file: Path, data: Path | None) -> None:
    """Write database and stored files to FILE, or to stdout for '-'; the platform may run meanwhile."""
    from private_api.admin.backup import back_up

    is_stream = str(file) == _STREAM
    if is_stream and sys.stdout.isatty():
        raise click.UsageError("A backup is no text for a terminal; name a file, or send stdout to one.")
    with _destination(file) as destination:
        report = back_up(_target(data), destination)
    _say(f"Backed up {_described(report.manifest)} to {'stdout' if is_stream else file}.")
    if report.missing.count:
        _say(
            f"Not in it, because deleted meanwhile or before: {_count(report.missing.count, 'file')}: {report.missing}."
        )
    if report.damaged.count:
        _say(f"WARNING: damaged on this disk, other bytes than were stored: {report.damaged.count}: {report.damaged}.")


@admin.command()
@_source
@_ending_in_one_line
def verify(file: Path) -> None:
    """Read FILE, or stdin for '-', and check that the backup is whole: every count and every hash."""
    from tempfile import TemporaryDirectory

    from private_api.admin.reading import read_backup

    with _opened(file) as source, TemporaryDirectory(prefix="verify-") as work:
        contents = read_backup(source, Path(work), keep=False)
    _say(f"The backup is whole: {_described(contents.manifest)}.")
    if contents.damaged:
        _say(f"Damaged already when it was made: {_count(len(contents.damaged), 'stored file')}.")


@admin.command()
@_source
@_data
@click.option("--replace", is_flag=True, help="Give up what database and folder hold; they must be empty otherwise.")
@_ending_in_one_line
def restore(file: Path, data: Path | None, replace: bool) -> None:
    """Fill an empty database and data folder from FILE, or from stdin for '-'; private_api must be stopped.

    A backup of SQLite may be restored to PostgreSQL and the other way round, one of an older version by a newer.
    """
    from private_api.admin.restore import restore as restore_backup

    with _opened(file) as source:
        report = restore_backup(_target(data), source, replace=replace)
    _say(f"Restored {_described(report.contents.manifest)}. Waiting for a consumer: {_count(report.waiting, 'task')}.")
    gone = report.contents.manifest.missing_files + len(report.contents.damaged)
    if gone:
        _say(f"The backup is without {_count(gone, 'stored file')}; a result among them answers 553.")


@admin.command()
@_data
@_ending_in_one_line
def installation(data: Path | None) -> None:
    """Print the installation's id, which containers and volumes of its consumers are labelled with."""
    from private_api.admin.backup import opened
    from private_api.storage.platform import known_installation

    with opened(_target(data)) as database:
        click.echo(database.read_sync(known_installation))


def _target(data: Path | None) -> "Target":
    from private_api.admin.target import Target

    try:
        return Target.find(data)
    except SystemExit:
        _say("For an 'infer up', name its folder: --data FOLDER.")
        raise


@contextmanager
def _destination(file: Path) -> Iterator[BinaryIO]:
    from private_api.admin.destination import new_file

    if str(file) == _STREAM:
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as stream:  # closed here, where its errors are told
            yield stream
    else:
        with new_file(file) as opened:
            yield opened


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == _STREAM:
        yield sys.stdin.buffer
    else:
        with file.open("rb") as opened:
            yield opened


def _described(manifest: "Manifest") -> str:
    counts = {name: rows.rows for name, rows in manifest.tables.items()}
    models, tasks = (_count(counts.get(name, 0), name.removesuffix("s")) for name in ("models", "tasks"))
    files = _count(manifest.files.rows - manifest.missing_files, "stored file")
    made = f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC, version {manifest.software}"
    return f"{models}, {tasks} and {files} ({_size(manifest.file_bytes)}; {made})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"


def _say(line: str) -> None:
    click.echo(line, err=True)

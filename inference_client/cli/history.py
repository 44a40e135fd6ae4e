"""The tasks posted from this machine, in a small file of the user's own.

A uid is a secret and the server lists none, so this file is the only list there is. One JSON line per task, oldest
first, readable by its owner alone; appended under a lock, and cut to the newest when it grows long.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from inference_client.errors import InputRefused

_MOST_ENTRIES = 1000
_WHOLE_UID_CHARACTERS = 20
"""No shorter word can be a uid; it must be the beginning of one that is known here."""


@dataclass(frozen=True)
class PostedTask:
    """One task, as it was posted."""

    uid: str
    url: str
    model: str
    posted_at: str


def history_file() -> Path:
    """Where the list is: under XDG_STATE_HOME, or its default."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "infer" / "tasks.jsonl"


def remember(uid: str, url: str, model: str) -> None:
    """Append a task."""
    task = PostedTask(uid, url, model, datetime.now(UTC).isoformat(timespec="seconds"))
    _rewrite(lambda tasks: [*tasks, task][-_MOST_ENTRIES:])


def forget(uids: set[str]) -> None:
    """Remove tasks that the server no longer has."""
    if uids:
        _rewrite(lambda tasks: [task for task in tasks if task.uid not in uids])


def posted_to(url: str) -> list[PostedTask]:
    """The tasks of one server, newest first."""
    with _locked() as file:
        return [task for task in reversed(_read(file)) if task.url == url]


def is_known(beginning: str) -> bool:
    """Whether a task posted from here begins so."""
    with _locked() as file:
        return any(task.uid.startswith(beginning) for task in _read(file))


def whole_uid(beginning: str, url: str) -> str:
    """The uid that begins so among the tasks posted to this server from here; a whole one need not be known.

    Raises
    ------
    InputRefused
        No known task begins so, or several do.
    """
    with _locked() as file:
        tasks = _read(file)
    found = {task.uid for task in tasks if task.uid.startswith(beginning)}
    here = {task.uid for task in tasks if task.uid in found and task.url == url}
    if len(here) == 1:
        return here.pop()
    if len(here) > 1:
        raise InputRefused(f"{len(here)} tasks begin with {beginning!r}; give more of the uid.")
    if len(beginning) >= _WHOLE_UID_CHARACTERS:
        return beginning
    elsewhere = sorted({task.url for task in tasks if task.uid in found})
    if elsewhere:
        raise InputRefused(f"The task {beginning!r} was posted to {elsewhere[0]}; add --url {elsewhere[0]}.")
    raise InputRefused(f"No task posted from here to {url} begins with {beginning!r}; give the whole uid.")


def _rewrite(change: Callable[[list[PostedTask]], list[PostedTask]]) -> None:
    with _locked() as file:
        lines = "".join(json.dumps(asdict(task)) + "\n" for task in change(_read(file)))
        file.seek(0)
        file.truncate()
        file.write(lines)


def _read(file: IO[str]) -> list[PostedTask]:
    """All entries; a line that is damaged is passed over, for the others are still of use."""
    file.seek(0)
    tasks = []
    for line in file:
        try:
            tasks.append(PostedTask(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return tasks


@contextmanager
def _locked() -> Iterator[IO[str]]:
    path = history_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:  # noqa: PTH123 - with a mode
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # held for one small rewrite, let go by the close
        yield file

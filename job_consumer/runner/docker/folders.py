"""Folders of attempts on this host: named so that a later process knows whose they are, removed whatever is inside."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from contracts.tasks import AttemptRef
from service_kit.logging import get_logger

log = get_logger(__name__)

_REMOVE_SECONDS = 300
_PARTS = 4


class AttemptFolders:
    """The folders of all attempts of one installation that were staged on this host."""

    def __init__(self, scratch: Path, installation: str) -> None:
        self._root = scratch.absolute() / f"docker-{quote(installation, safe='')}"

    def create(self, attempt: AttemptRef) -> Path:
        """A new, empty folder for one run of the attempt.

        Raises
        ------
        OSError
            The disk refused.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = secrets.token_hex(4)
        folder = self._root / f"{attempt.task_id}-{attempt.attempt}-{token}-{quote(attempt.consumer, safe='')}"
        folder.mkdir(mode=0o700)
        return folder

    def create_probe(self) -> Path:
        """A new, empty folder that belongs to no attempt; whoever makes it removes it.

        Raises
        ------
        OSError
            The disk refused.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / f"probe-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        return folder

    def found(self) -> Iterator[tuple[AttemptRef, Path]]:
        """All folders that belong to an attempt, of any consumer."""
        try:
            folders = list(self._root.iterdir())
        except FileNotFoundError:
            return
        for folder in folders:
            attempt = _attempt_of(folder.name)
            if attempt is not None:
                yield attempt, folder


def _attempt_of(name: str) -> AttemptRef | None:
    parts = name.split("-", _PARTS - 1)
    if len(parts) != _PARTS or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return AttemptRef(task_id=int(parts[0]), attempt=int(parts[1]), consumer=unquote(parts[3]))


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that is in it; whether it is gone. Never raises, what stays is logged.

    ``rm`` helps where Python gives up: a model may nest folders deeper than recursion and path names go, and another
    consumer may remove the same folder at the same time.
    """
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError) as error:
        return not os.path.lexists(folder) or _remove_stubborn(folder, error)
    return True


def _remove_stubborn(folder: Path, why: Exception) -> bool:
    try:
        subprocess.run(["rm", "-rf", "--", str(folder)], check=True, timeout=_REMOVE_SECONDS, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        why = error
    if os.path.lexists(folder):
        log.warning("folder_not_removed", folder=str(folder), error=str(why))
        return False
    return True

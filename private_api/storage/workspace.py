"""Folders beside the stored files in which a backup or a restore works, on the same file system.

Each belongs to one process at a time. What a dead one left is removed by the next, or at the start of private_api.
"""

import shutil
from pathlib import Path

from contracts.errors import Conflict
from private_api.storage.files import FolderLock
from service_kit.logging import get_logger

log = get_logger(__name__)

BACKUP = "backup"
RESTORE = "restore"
_LOCK = "lock"


class Workspace:
    """One such folder, taken and empty; its owner closes it."""

    def __init__(self, data_dir: Path, name: str) -> None:
        """Take the folder, and remove what is in it.

        Raises
        ------
        Conflict
            Another process works in it.
        OSError
            The folder cannot be made or written.
        """
        self.folder = data_dir / name
        try:
            self._lock = FolderLock(self.folder)
        except Conflict as error:
            raise Conflict(f"Another {name} of {data_dir} is under way; wait for its end.") from error
        try:
            self._empty()
        except OSError:
            self._lock.release()
            raise

    def close(self) -> None:
        """Leave nothing but the folder and its lock."""
        try:
            self._empty()
        finally:
            self._lock.release()

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()


def clear_leftovers(data_dir: Path) -> None:
    """Remove what dead backups and restores left below the folder; a living one keeps its own."""
    for name in (BACKUP, RESTORE):
        if not (data_dir / name).is_dir():
            continue
        try:
            Workspace(data_dir, name).close()
        except Conflict:
            log.info("workspace_in_use", folder=name)
        except OSError as error:
            log.warning("workspace_not_cleared", folder=name, reason=error.strerror)

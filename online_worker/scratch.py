"""The worker's folder for the files of generations: its own, gone when it ends, and after a crash with the next one."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "online-worker-"
_LOCK = "lock"


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder below ``parent``, or below the system's for temporary files, removed at the end.

    Raises
    ------
    OSError
        It cannot be made.
    """
    home = parent or Path(tempfile.gettempdir())
    home.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(home)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int:
    """Show with a lock, which ends with the process, that the folder is in use.

    The file gets its name once it is locked, so nobody finds it free in between.
    """
    lock = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "new").rename(folder / _LOCK)
    return lock


def _remove_abandoned(home: Path) -> None:
    """Remove the folders of workers that were killed; models may be large."""
    for folder in home.glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid == os.geteuid() and not _is_in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another worker removed it just now, or it has no lock yet
            continue


def _is_in_use(folder: Path) -> bool:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False

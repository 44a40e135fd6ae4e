"""The folder for zips on their way: locked while its consumer lives, so that a successor can clear up after it."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_LOCK = "lock"


class Transfers:
    """One consumer's folder below a scratch folder that several may share; use it in a ``with`` statement."""

    def __init__(self, scratch: Path, consumer: str) -> None:
        self._all = scratch / "transfers"
        self._own = self._all / consumer

    def __enter__(self) -> Self:
        self._lock = self._locked()
        self._clear_dead()
        return self

    def _locked(self) -> BinaryIO:
        """Make the folder and lock it; another consumer that starts may take it for dead between the two."""
        while True:
            self._own.mkdir(parents=True, exist_ok=True)
            try:
                lock = (self._own / _LOCK).open("wb")
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_still(lock, self._own / _LOCK):
                return lock
            lock.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._own, ignore_errors=True)
        self._lock.close()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for one transfer, removed at the end."""
        path = Path(tempfile.mkdtemp(dir=self._own))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _clear_dead(self) -> None:
        """Remove the folders of consumers that are gone: nobody holds their locks."""
        for folder in self._all.iterdir():
            if folder == self._own:
                continue
            try:
                with (folder / _LOCK).open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_still(lock, folder / _LOCK):
                        shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # it lives, or is just being made


def _is_still(lock: BinaryIO, path: Path) -> bool:
    """Whether the locked file is the one at the path, and not one that was removed while we waited for it."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False

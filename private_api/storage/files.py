"""The stored files: uploads stream in, hashed and counted on the way, and appear complete or not at all.

A file is written under ``tmp/``, flushed to disk, renamed, and its folder flushed. What a crash leaves in ``tmp/`` is
removed at the next start. Hashing and writing happen in threads, in batches of about one MiB; no more than two batches
of one upload are in memory.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from contracts.errors import Conflict, StorageFull, Unavailable, UploadTooLarge
from private_api.records import Blob
from service_kit.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")
Piece = bytes | memoryview

_BATCH_BYTES = 2**20
_FLUSH_BYTES = 32 * 2**20
"""Every so much, the disk is told to begin: the flush at the end then waits for little."""
_THREADS = 8
_MOST_VECTORS = 512
_TEMPORARY = "tmp"


class BlobKind(StrEnum):
    """What a file is; the name of its folder."""

    INPUT = "inputs"
    OUTPUT = "outputs"
    MODEL = "models"


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _full() from error
        raise Unavailable(f"The platform's files cannot be written ({error.strerror}); tell the operator.") from error


def _full() -> StorageFull:
    return StorageFull("The disk that holds the platform's files is full; try later or tell the operator.")


def flush_folder(folder: Path) -> None:
    """Put to disk which files the folder holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Draft:
    """A file being written. Its methods run in threads, one at a time; after ``discard`` they do nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, pieces: list[Piece]) -> None:
        """Append the pieces."""
        with self._turn, _disk_errors():
            if self._descriptor is None:
                return
            for piece in pieces:
                self._hash.update(piece)
            self._size += _write_all(self._descriptor, pieces)

    def begin_flush(self) -> None:
        """Push to disk what was written so far, while more is being written, and drop it from the page cache.

        An upload of many GiB would otherwise push everything else out of memory, and stall when the kernel has had
        enough of its dirty pages.
        """
        with self._turn, _disk_errors():
            copy = None if self._descriptor is None else os.dup(self._descriptor)
        if copy is not None:
            try:
                with _disk_errors():
                    os.fdatasync(copy)
                    os.posix_fadvise(copy, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(copy)

    def publish(self, path: Path, name: str) -> Blob:
        """Flush and let the file appear under its name."""
        with self._turn, _disk_errors():
            if self._descriptor is None:
                raise Conflict("The upload was called off.")
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._path.rename(path)
            flush_folder(path.parent)
        return Blob(name=name, sha256=self._hash.hexdigest(), size=self._size)

    def discard(self) -> None:
        """Leave nothing; also after ``publish``, whose file stays."""
        with self._turn:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self._path.unlink(missing_ok=True)


def _write_all(descriptor: int, pieces: list[Piece]) -> int:
    total = 0
    for start in range(0, len(pieces), _MOST_VECTORS):
        vectors = [memoryview(piece) for piece in pieces[start : start + _MOST_VECTORS]]
        while vectors:
            written = os.writev(descriptor, vectors)
            total += written
            while vectors and written >= len(vectors[0]):
                written -= len(vectors.pop(0))
            if written:
                vectors[0] = vectors[0][written:]
    return total


class BlobStore:
    """The files below one folder. Names are relative to it and safe to store."""

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")
        for name in (_TEMPORARY, *BlobKind):
            (root / name).mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the file of that name is, if it is."""
        return self._root / name

    def check_space(self, more_bytes: int = 0) -> None:
        """Refuse an upload that would leave less than the reserve.

        Raises
        ------
        StorageFull
            There is not room for so many bytes above the reserve.
        """
        with _disk_errors():
            disk = os.statvfs(self._root)
        if disk.f_bavail * disk.f_frsize - more_bytes < self._min_free_bytes:
            raise _full()

    async def receive(self, kind: BlobKind, chunks: AsyncIterator[Piece], most_bytes: int, *, prefix: str = "") -> Blob:
        """Store a stream as a new file, on disk when this returns; on any error nothing is left.

        Raises
        ------
        UploadTooLarge
            The stream is longer than ``most_bytes``.
        StorageFull, Unavailable
            The disk is full, or fails.
        """
        self.check_space()
        token = secrets.token_hex(16)
        draft = await self.in_thread(_Draft, self._root / _TEMPORARY / token)
        try:
            await self._fill(draft, chunks, most_bytes)
            name = f"{kind}/{prefix}{token}"
            return await self.in_thread(draft.publish, self.path(name), name)
        finally:
            draft.discard()

    async def _fill(self, draft: _Draft, chunks: AsyncIterator[Piece], most_bytes: int) -> None:
        size = unflushed = waiting = 0
        batch: list[Piece] = []
        writing: Future[None] | None = None
        flushing: Future[None] | None = None
        async for chunk in chunks:
            size += len(chunk)
            if size > most_bytes:
                raise UploadTooLarge(f"The upload is larger than the limit of {most_bytes} bytes.")
            batch.append(chunk)
            waiting += len(chunk)
            if waiting < _BATCH_BYTES:
                continue
            if writing is not None:
                await asyncio.wrap_future(writing)
            writing = self._threads.submit(draft.write, batch)
            unflushed += waiting
            batch, waiting = [], 0
            if unflushed >= _FLUSH_BYTES and (flushing is None or flushing.done()):
                self.check_space()
                flushing = self._threads.submit(draft.begin_flush)
                unflushed = 0
        if writing is not None:
            await asyncio.wrap_future(writing)
        await self.in_thread(draft.write, batch)
        if flushing is not None:
            await asyncio.wrap_future(flushing)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run file work outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error, one that cannot be removed is left to the next start."""
        if names := list(names):
            await self.in_thread(self.remove_now, names)

    def remove_now(self, names: Iterable[str]) -> None:
        """As :meth:`remove`, in the calling thread."""
        for name in names:
            try:
                self.path(name).unlink(missing_ok=True)
            except OSError as error:
                log.warning("file_not_removed", file=name, reason=error.strerror)

    def clear_temporary(self) -> None:
        """Remove what an earlier process left half written; only before this one writes."""
        for path in (self._root / _TEMPORARY).iterdir():
            path.unlink()

    def names(self, kind: BlobKind) -> list[str]:
        """All files of a kind."""
        with os.scandir(self._root / kind) as entries:
            return [f"{kind}/{entry.name}" for entry in entries]

    def modified_at(self, name: str) -> float | None:
        """When the file was last written, in seconds since the epoch; None when it is gone."""
        try:
            return self.path(name).stat().st_mtime
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class FolderLock:
    """Keeps a second process out of a folder; the kernel lets go when the process dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        """Take the folder.

        Raises
        ------
        Conflict
            Another process holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise Conflict(f"Another private_api owns DATA_DIR {folder}; stop it, or give this one its own.") from error

    def release(self) -> None:
        """Let another process have the folder."""
        with suppress(OSError):
            os.close(self._descriptor)

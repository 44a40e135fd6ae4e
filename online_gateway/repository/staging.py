"""A file while it arrives: hashed, counted and flushed on the way, and gone afterwards unless it was taken."""

import asyncio
import hashlib
import os
import threading
from pathlib import Path

from contracts.errors import Conflict, UploadTooLarge
from online_gateway.durable_files import disk_errors, open_locked, write_all


class StagedContent:
    """What is to become the content of a generation.

    Its lock shows other gateways in the same folder that somebody still works on it. Disk work happens in threads, one
    at a time; after :meth:`discard` they do nothing.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        descriptor = open_locked(path)
        if descriptor is None:
            raise Conflict(f"{path} is being written by another one.")
        self.path = path
        """Where it is now."""
        self._descriptor: int | None = descriptor
        self._most_bytes = most_bytes
        self._turn = threading.Lock()
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def name(self) -> str:
        """The file's name, made up."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def sha256(self) -> str:
        """Of the bytes so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Append the chunk.

        Raises
        ------
        UploadTooLarge
            It is more than a model may have.
        StorageFull, Unavailable
            The disk is full, or fails.
        """
        if self._size + len(chunk) > self._most_bytes:
            raise UploadTooLarge(f"The model is larger than the limit of {self._most_bytes} bytes (MAX_MODEL_BYTES).")
        await asyncio.to_thread(self._append, chunk)

    async def flush(self) -> None:
        """Return when all bytes are on disk."""
        await asyncio.to_thread(self._flush)

    def discard(self) -> None:
        """Leave nothing, unless it was moved: then only let go of it."""
        with self._turn:
            if self._descriptor is not None:
                self.path.unlink(missing_ok=True)
                self._let_go()

    def move(self, path: Path) -> None:
        """Give it its place, and let go of it: from then on it belongs to whoever took it."""
        with self._turn:
            if self._descriptor is None:
                raise Conflict("The upload was called off, or installed before.")
            self.path.rename(path)
            self.path = path
            self._let_go()

    def _append(self, chunk: bytes) -> None:
        with self._turn, disk_errors():
            if self._descriptor is not None:
                write_all(self._descriptor, chunk)
                self._hash.update(chunk)
                self._size += len(chunk)

    def _flush(self) -> None:
        with self._turn, disk_errors():
            if self._descriptor is not None:
                os.fsync(self._descriptor)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

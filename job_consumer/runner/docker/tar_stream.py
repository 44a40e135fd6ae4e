"""Folders to and from the engine as tar streams; no archive is ever whole in memory or on disk."""

import errno
import io
import itertools
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from contracts.archives import safe_path
from contracts.errors import HostileArchive, UploadTooLarge

_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)


def folder_as_tar(folder: Path, at: str, mode: int = 0o755) -> Iterator[bytes]:
    """The folder's files and folders as a tar without an end, under the absolute path ``at``, which gets ``mode``.

    The content must be ours (unpacked by us): what is neither file nor folder is not expected, and left out.
    """
    root = at.strip("/")
    yield _folder_header(root, mode)
    for parent, folders, files in os.walk(folder):
        below = PurePosixPath(root) / PurePosixPath(os.path.relpath(parent, folder))
        for name in folders:
            yield _folder_header(str(below / name), 0o755)
        for name in files:
            yield from _file(Path(parent, name), str(below / name))


def whole_tar(*parts: Iterable[bytes]) -> Iterator[bytes]:
    """Parts made by :func:`folder_as_tar`, one after the other, and the end, in pieces worth sending."""
    waiting = bytearray()
    for piece in itertools.chain(*parts, [_END]):
        waiting += piece
        if len(waiting) >= _CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def extract_output(stream: Iterable[bytes], folder: Path, max_bytes: int, max_entries: int) -> list[str]:
    """Write the files and folders of an engine's tar below an empty folder; the names of what was skipped.

    The first component of each name (the folder that was asked for) is dropped. No link is ever made, so none can be
    followed. Two names of one file (hard links) become two files.

    Raises
    ------
    UploadTooLarge
        More than ``max_bytes`` bytes or ``max_entries`` entries.
    OSError
        The disk refused, or the stream is no tar.
    """
    skipped: list[str] = []
    total = 0
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Stream(stream), _CHUNK_BYTES), mode="r|") as tar:
            entries = 0
            while (member := tar.next()) is not None:
                entries += 1
                if entries > max_entries:
                    raise UploadTooLarge(f"The output holds more than {max_entries} files and folders.")
                total += member.size if member.isreg() else 0
                if total > max_bytes:
                    raise UploadTooLarge(f"The output holds more than {max_bytes} bytes.")
                path = _inner(member.name)
                if path is None or not _write(tar, member, folder, path):
                    skipped.append(os.fsencode(member.name.partition("/")[2]).decode("utf-8", "backslashreplace"))
                tar.members.clear()  # type: ignore[attr-defined]  # the library keeps every header it has seen
    except tarfile.TarError as error:
        raise OSError(errno.EIO, f"the engine's archive is damaged ({error})") from error
    return skipped


def _inner(name: str) -> PurePosixPath | None:
    """The path below the folder that was asked for; None for a name that no zip takes."""
    inner = name.partition("/")[2]
    try:
        return safe_path(inner) if inner else PurePosixPath()
    except HostileArchive:
        return None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: PurePosixPath) -> bool:
    """Write one entry; False when it is neither file nor folder."""
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return True
    if not member.isreg() and not member.islnk():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.islnk():
        return _link(member, folder, target)
    source = tar.extractfile(member)
    assert source is not None, "a regular file has content"  # noqa: S101
    with source, target.open("xb") as output:
        shutil.copyfileobj(source, output, _CHUNK_BYTES)
    os.utime(target, (member.mtime, member.mtime))
    target.chmod(0o755 if member.mode & 0o111 else 0o644)
    return True


def _link(member: tarfile.TarInfo, folder: Path, target: Path) -> bool:
    first = _inner(member.linkname)
    if first is None or not (folder / first).is_file():
        return False
    os.link(folder / first, target)
    return True


def _folder_header(name: str, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = mode
    return _header(info)


def _file(path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as source:
        status = os.fstat(source.fileno())
        info = tarfile.TarInfo(name)
        info.size = status.st_size
        info.mode = status.st_mode & 0o777
        info.mtime = int(status.st_mtime)
        yield _header(info)
        yield from _exactly(source, info.size)
    yield bytes(-info.size % _BLOCK_BYTES)


def _exactly(source: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = source.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise OSError(errno.EIO, "a file became shorter while it was read")
        left -= len(chunk)
        yield chunk


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Stream(io.RawIOBase):
    """Chunks of any size as a readable file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]  # any writable buffer
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

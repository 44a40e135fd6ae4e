"""Reading a backup from its first byte to its last, in one pass, checking everything that it says of itself."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from contracts.errors import InvalidRequest
from private_api.admin import archive_format as form
from private_api.admin.destination import create_private
from private_api.storage.files import BlobKind

_LONGEST_LINE = 64 * 2**20


@dataclass(frozen=True)
class Contents:
    """A backup that proved whole."""

    manifest: form.Manifest
    damaged: frozenset[str]
    """Files whose bytes were wrong already when the backup was made."""


def read_backup(
    source: BinaryIO, work: Path, *, keep: bool, on_manifest: Callable[[form.Manifest], None] = lambda _: None
) -> Contents:
    """Check a whole backup; with ``keep``, unpack it below ``work``: tables, list of files, and the good stored files.

    ``on_manifest`` may raise, before anything else is read.

    Raises
    ------
    InvalidRequest
        It is no backup, or not whole.
    Conflict
        Its format is newer than this version.
    OSError
        The source cannot be read, or ``work`` not be written.
    """
    tar = form.TarReader(source)
    try:
        first = tar.document(form.MANIFEST)
    except InvalidRequest as error:
        raise InvalidRequest(
            "This is no backup of an inference server; a compressed one must be unpacked first."
        ) from error
    manifest = form.parse_manifest(first)
    on_manifest(manifest)
    for name, rows in manifest.tables.items():
        _lines(tar, form.table_member(name), rows, _row_check, work / f"{name}.jsonl" if keep else None)
    _lines(tar, form.FILES, manifest.files, form.parse_file_line, work / form.FILES)
    found = _stored_files(tar, work, keep=keep)
    end = form.parse_end(tar.document(form.END))
    tar.end()
    if end.manifest_sha256 != hashlib.sha256(first).hexdigest():
        raise form.damaged("its manifest was changed")
    if found.missing != manifest.missing_files:
        raise form.damaged("its manifest counts other files than its list")
    if wrong := next((name for name in found.damaged if name not in end.damaged), None):
        raise form.damaged(f"{wrong} has other bytes than it had")
    return Contents(manifest, frozenset(found.damaged))


def files_in(work: Path) -> Iterator[form.StoredFile]:
    """The lines of the list of files that was unpacked."""
    with (work / form.FILES).open("rb") as lines:
        for line in lines:
            yield form.parse_file_line(line)


def staged(work: Path, name: str) -> Path:
    """Where a stored file was unpacked."""
    return work / "files" / name


def _row_check(line: bytes) -> None:
    form.parse_row(line)


def _lines(
    tar: form.TarReader, member: str, expected: form.Rows, check: Callable[[bytes], object], path: Path | None
) -> None:
    """Take a member of lines, each checked, and keep it at the path, if there is one."""
    size = tar.enter(member)
    digest, rows, rest = hashlib.sha256(), 0, b""
    with _maybe_written(path) as write:
        for piece in tar.pieces(size):
            digest.update(piece)
            write(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                check(line)
            rows += len(lines)
            if len(rest) > _LONGEST_LINE:
                raise form.damaged(f"{member} has a line without an end")
    if rest or rows != expected.rows or digest.hexdigest() != expected.sha256:
        raise form.damaged(f"{member} has other lines than it had")


@dataclass
class _Found:
    missing: int
    damaged: list[str]


def _stored_files(tar: form.TarReader, work: Path, *, keep: bool) -> _Found:
    found = _Found(0, [])
    if keep:
        for kind in BlobKind:
            staged(work, kind).mkdir(parents=True)
    for stored in files_in(work):
        if stored.is_missing:
            found.missing += 1
            continue
        path = staged(work, stored.name) if keep else None
        size = tar.enter(form.file_member(stored.name))
        if _file(tar, size, path) != stored.sha256:
            found.damaged.append(stored.name)
            if path is not None:
                path.unlink()
    return found


def _file(tar: form.TarReader, size: int, path: Path | None) -> str:
    """Take a stored file; its hash."""
    digest = hashlib.sha256()
    with _maybe_written(path) as write:
        for piece in tar.pieces(size):
            digest.update(piece)
            write(piece)
    return digest.hexdigest()


@contextmanager
def _maybe_written(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """A function that writes to a new file, on disk when the block ends well; without a path it does nothing."""
    if path is None:
        yield len
        return
    try:
        file = create_private(path)
    except FileExistsError as error:
        raise form.damaged(f"{path.name} occurs twice") from error
    with file:
        yield file.write
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

"""Zips in and out of folders: unpacking what users sent, packing what a model left behind.

Neither side is trusted. A user's zip passes :mod:`contracts.archives` and is read with real bytes counted; a model's
output folder may hold links, pipes and devices, which are never opened, also not when swapped in while we look.
"""

import errno
import os
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO

from contracts.archives import ArchiveEntry, ArchiveLimits, check_archive, safe_path
from contracts.errors import HostileArchive, NotAnArchive, UploadTooLarge

_CHUNK_BYTES = 1 << 20
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644
_PROGRAM_MODE = 0o755
_ANY_EXECUTE = 0o111

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)
"""What zipfile raises for bytes that are no zip; ValueError covers undecodable names."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_VANISHED_OR_SWAPPED = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO})
"""What opening answers when an entry is no longer what the listing said."""

_EARLIEST = 315_619_200
_LATEST = 4_354_732_799
"""The zip format knows the years 1980 to 2107; other times become the nearest of these."""

_SAMPLE_BYTES = 1 << 16
_WORTH_SAMPLING_BYTES = 1 << 20
_INCOMPRESSIBLE = 0.95
_ZIP64_FROM_BYTES = 1 << 30


def unpack(zip_path: Path, folder: Path, limits: ArchiveLimits) -> None:
    """Unpack a zip into an existing, empty folder; what it makes is readable by every user (a container's may be any).

    On an error the folder holds a part of the content; the caller removes it.

    Raises
    ------
    NotAnArchive
        The zip is damaged: unreadable, cut off, a wrong checksum, or sizes that its header lies about.
    HostileArchive
        It breaks a rule of :mod:`contracts.archives`.
    OSError
        The disk refused.
    """
    entries = check_archive(zip_path, limits)
    made = {PurePosixPath()}
    with zipfile.ZipFile(zip_path) as archive:
        for entry in entries:
            if entry.is_dir:
                _make_folders(folder, entry.path, made)
            else:
                _make_folders(folder, entry.path.parent, made)
                _write_entry(archive, entry, folder / entry.path)


def _make_folders(folder: Path, path: PurePosixPath, made: set[PurePosixPath]) -> None:
    """Make the folder and those above it that were not made yet; asking the disk each time is slow in deep trees."""
    missing = list(takewhile(lambda one: one not in made, (path, *path.parents)))
    for one in reversed(missing):
        (folder / one).mkdir()
        (folder / one).chmod(_FOLDER_MODE)
        made.add(one)


def _write_entry(archive: zipfile.ZipFile, entry: ArchiveEntry, target: Path) -> None:
    is_program = (entry.info.external_attr >> 16) & _ANY_EXECUTE
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as output:
        os.fchmod(descriptor, _PROGRAM_MODE if is_program else _FILE_MODE)
        written = 0
        for chunk in _read_entry(archive, entry):
            _write_all(output, chunk)
            written += len(chunk)
    if written != entry.info.file_size:
        raise NotAnArchive(
            f"The entry {str(entry.path)!r} holds {written} bytes where its header says {entry.info.file_size}."
        )


def _write_all(output: IO[bytes], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[output.write(rest) :]


def _read_entry(archive: zipfile.ZipFile, entry: ArchiveEntry) -> Iterator[bytes]:
    """The entry's bytes; zipfile stops at the declared size and compares the checksum at the end."""
    try:
        with archive.open(entry.info) as source:
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk
    except _DAMAGED as error:
        raise NotAnArchive(f"The entry {str(entry.path)!r} is damaged ({error}); zip the files again.") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset that is no place in a file
            raise NotAnArchive(
                f"The entry {str(entry.path)!r} lies outside of the zip; zip the files again."
            ) from error
        raise


def pack(folder: Path, zip_path: Path, max_bytes: int, max_entries: int = ArchiveLimits().max_entries) -> list[str]:
    r"""Zip the folder's content into a new file; an empty folder gives an empty zip.

    Files keep their names, bytes and execute bit; empty folders are entries of their own. Skipped, and returned by
    name, is all that is neither file nor folder, and names that no honest zip has (not UTF-8, ``..\``, longer than a
    file system takes): what is packed here, :func:`unpack` accepts. On an error no zip is left.

    Raises
    ------
    UploadTooLarge
        The content exceeds ``max_bytes``, or has more files and folders than ``max_entries``.
    OSError
        Something could not be read, or the zip could not be written.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with zipfile.ZipFile(zip_path, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            packing = _Packing(archive, root, max_bytes, max_entries)
            packing.run()
    except FileExistsError:
        raise
    except (OSError, UploadTooLarge):
        zip_path.unlink(missing_ok=True)
        raise
    finally:
        os.close(root)
    return packing.skipped


@dataclass
class _Packing:
    """One walk over one folder; no path is ever resolved through a link."""

    archive: zipfile.ZipFile
    root: int
    max_bytes: int
    max_entries: int
    skipped: list[str] = field(default_factory=list)
    entries: int = 0
    bytes_read: int = 0

    def run(self) -> None:
        folders = [PurePosixPath()]
        while folders:
            folder = folders.pop()
            found, is_empty = self._pack_folder(folder)
            folders.extend(reversed(found))
            if is_empty and folder != PurePosixPath():
                self._add_folder(folder)

    def _pack_folder(self, folder: PurePosixPath) -> tuple[list[PurePosixPath], bool]:
        """Pack the files; the folders found, and whether nothing at all was."""
        descriptor = self._open_folder(folder)
        if descriptor is None:
            self._skip(folder)
            return [], False
        folders: list[PurePosixPath] = []
        files = 0
        try:
            for name in self._names(descriptor):
                path = folder / name
                try:
                    mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    continue
                if not _is_packable(path):
                    self._skip(path)
                elif stat.S_ISDIR(mode):
                    folders.append(path)
                elif stat.S_ISREG(mode) and self._add_file(descriptor, name, path):
                    files += 1
                else:
                    self._skip(path)
        finally:
            os.close(descriptor)
        return folders, not folders and not files

    def _open_folder(self, folder: PurePosixPath) -> int | None:
        """Open step by step from the root, so that depth costs no descriptors; None when a step is no folder now."""
        descriptor = os.dup(self.root)
        try:
            for part in folder.parts:
                step = os.open(part, _OPEN_FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = step
        except OSError as error:
            os.close(descriptor)
            if error.errno in _VANISHED_OR_SWAPPED:
                return None
            raise
        return descriptor

    def _names(self, descriptor: int) -> list[str]:
        names: list[str] = []
        with os.scandir(descriptor) as listing:
            for entry in listing:
                self.entries += 1
                if self.entries > self.max_entries:
                    raise UploadTooLarge(f"The output holds more than {self.max_entries} files and folders.")
                names.append(entry.name)
        return sorted(names)

    def _add_folder(self, folder: PurePosixPath) -> None:
        info = zipfile.ZipInfo(f"{folder}/")
        info.external_attr = (stat.S_IFDIR | _FOLDER_MODE) << 16 | 0x10
        self.archive.writestr(info, b"", compress_type=zipfile.ZIP_STORED)

    def _add_file(self, folder: int, name: str, path: PurePosixPath) -> bool:
        """Pack one file; False when it is none any more."""
        try:
            descriptor = os.open(name, _OPEN_FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in _VANISHED_OR_SWAPPED:
                return False
            raise
        with os.fdopen(descriptor, "rb", buffering=0) as source:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return False
            self.bytes_read += status.st_size
            if self.bytes_read > self.max_bytes:
                raise UploadTooLarge(f"The output holds more than {self.max_bytes} bytes.")
            self._copy(source, _info_of(path, status))
        return True

    def _copy(self, source: IO[bytes], info: zipfile.ZipInfo) -> None:
        """Copy as many bytes as the file had when it was opened; growth after that is not counted and not packed."""
        left = info.file_size
        chunk = source.read(min(_CHUNK_BYTES, left))
        if left >= _WORTH_SAMPLING_BYTES and _is_incompressible(chunk[:_SAMPLE_BYTES]):
            info.compress_type = zipfile.ZIP_STORED
        with self.archive.open(info, "w", force_zip64=left >= _ZIP64_FROM_BYTES) as target:
            while chunk:
                target.write(chunk)
                left -= len(chunk)
                chunk = source.read(min(_CHUNK_BYTES, left))

    def _skip(self, path: PurePosixPath) -> None:
        self.skipped.append(os.fsencode(str(path)).decode("utf-8", "backslashreplace"))


def _is_packable(path: PurePosixPath) -> bool:
    try:
        safe_path(f"{path}/")  # as a folder's entry would be named
    except HostileArchive:
        return False
    return True


def _is_incompressible(sample: bytes) -> bool:
    return len(zlib.compress(sample, 1)) > _INCOMPRESSIBLE * len(sample)


def _info_of(path: PurePosixPath, status: os.stat_result) -> zipfile.ZipInfo:
    changed = time.gmtime(min(max(status.st_mtime, _EARLIEST), _LATEST))
    info = zipfile.ZipInfo(str(path), changed[:6])
    mode = _PROGRAM_MODE if status.st_mode & _ANY_EXECUTE else _FILE_MODE
    info.external_attr = (stat.S_IFREG | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = status.st_size
    return info

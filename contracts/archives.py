"""What an acceptable zip is: one rule, asked at the post by private_api and again by the consumer.

Refused are names that leave the folder (``..`` behind either slash, absolute names, drive letters), links, devices,
encrypted entries, two entries of one name, a file where another entry needs a folder, and bombs: too many entries, too
much in total, or a ratio that no honest file has. Refused, too, are bzip2 and LZMA: zipfile decompresses them without a
bound on memory (four kilobytes of bzip2 may stand for four gigabytes). Sizes here are the declared ones; whoever
unpacks counts real bytes.
"""

import errno
import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contracts.errors import HostileArchive, NotAnArchive

_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
_COMPRESSION_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_NAME_BYTES = 255
_PATH_BYTES = 2048
_DIRECTORY_BYTES_PER_ENTRY = 512
_DIRECTORY_BYTES_AT_LEAST = 2**20
_DIRECTORY_SIGNATURE = b"PK\x01\x02"
_RATIO_FREE_BYTES = 10 * 2**20
"""Below this total no ratio is too high: a page of zeros compresses a thousandfold and harms nobody."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds of one archive: entries (and folders that names imply), bytes unpacked, bytes unpacked per byte packed."""

    max_entries: int = 100_000
    max_unpacked_bytes: int = 200 * 2**30
    max_ratio: float = 200.0


@dataclass(frozen=True)
class ArchiveEntry:
    """One accepted entry: where it goes, below the folder that it is unpacked into."""

    info: zipfile.ZipInfo
    path: PurePosixPath
    is_dir: bool


def entry_name(info: zipfile.ZipInfo) -> str:
    """The name as its writer meant it: UTF-8 where the bytes are UTF-8, flagged or not (many tools forget the flag)."""
    name = info.orig_filename
    if info.flag_bits & _UTF8_FLAG:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def safe_path(name: str) -> PurePosixPath:
    """The relative path that an entry name stands for.

    Raises
    ------
    HostileArchive
        The name is empty, absolute, leaves the folder, or no file system would take it.
    """
    shown = name if len(name) <= 80 else name[:77] + "..."
    either_slash = name.replace("\\", "/")
    if not name or "\x00" in name:
        raise HostileArchive(f"The zip holds the entry name {shown!r}, which is no file name.")
    if either_slash.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        raise HostileArchive(f"The zip holds the absolute name {shown!r}; names must be relative.")
    if ".." in either_slash.split("/"):
        raise HostileArchive(f"The zip holds {shown!r}, which leaves its folder; remove '..' from the names.")
    path = PurePosixPath(name)
    try:
        too_long = len(name.encode()) > _PATH_BYTES or any(len(part.encode()) > _NAME_BYTES for part in path.parts)
    except UnicodeEncodeError as error:
        raise HostileArchive(f"The zip holds the entry name {shown!r}, which is not valid text.") from error
    if too_long:
        raise HostileArchive(f"The zip holds the name {shown!r}, which is longer than a file system takes.")
    return path


def _check_kind(info: zipfile.ZipInfo, name: str) -> bool:
    """Whether the entry is a folder; refuses what is neither file nor folder."""
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a link" if mode == stat.S_IFLNK else "a device or pipe"
        raise HostileArchive(f"The zip holds {kind}, {name!r}; only files and folders are accepted.")
    if info.flag_bits & _ENCRYPTED_FLAG:
        raise HostileArchive(f"The entry {name!r} is encrypted; send the zip without a password.")
    if info.compress_type not in _COMPRESSION_METHODS:
        raise HostileArchive(f"The entry {name!r} has compression method {info.compress_type}; use deflate or store.")
    is_dir = name.endswith("/") or mode == stat.S_IFDIR
    if is_dir and info.file_size:
        raise HostileArchive(f"The folder {name!r} holds bytes of its own, as if it were a file.")
    return is_dir


def _check_folders(seen: Mapping[PurePosixPath, bool], max_entries: int) -> None:
    """Refuse a file in a folder's place, and too many folders: one deep name stands for a thousand of them."""
    folders = {PurePosixPath()}
    implied = 0
    for path in seen:
        for parent in path.parents:
            if parent in folders:
                break
            if seen.get(parent) is False:
                raise HostileArchive(f"The zip holds {str(parent)!r} both as a file and as a folder.")
            folders.add(parent)
            implied += parent not in seen
            if len(seen) + implied > max_entries:
                raise _too_many_entries(max_entries)


def _too_many_entries(limit: int) -> HostileArchive:
    return HostileArchive(f"The zip holds more than {limit} entries, the folders of their names counted.")


def check_entries(infos: Iterable[zipfile.ZipInfo], limits: ArchiveLimits, packed_bytes: int) -> list[ArchiveEntry]:
    """Accept all entries of one archive, or none.

    Raises
    ------
    HostileArchive
        One entry, or all of them together, break a rule of this module.
    """
    entries: list[ArchiveEntry] = []
    seen: dict[PurePosixPath, bool] = {}
    total = 0
    for info in infos:
        name = entry_name(info)
        path = safe_path(name)
        is_dir = _check_kind(info, name)
        if path == PurePosixPath("."):
            if is_dir:
                continue
            raise HostileArchive(f"The zip holds the entry name {name!r}, which is no file name.")
        if path in seen:
            raise HostileArchive(f"The zip holds two entries named {str(path)!r}.")
        seen[path] = is_dir
        total += info.file_size
        entries.append(ArchiveEntry(info=info, path=path, is_dir=is_dir))
        if len(entries) > limits.max_entries:
            raise _too_many_entries(limits.max_entries)
    _check_folders(seen, limits.max_entries)
    if total > limits.max_unpacked_bytes:
        raise HostileArchive(f"The zip unpacks to {total} bytes; the limit is {limits.max_unpacked_bytes}.")
    if total > _RATIO_FREE_BYTES and total > limits.max_ratio * max(packed_bytes, 1):
        raise HostileArchive(
            f"The zip unpacks to {total} bytes from {packed_bytes}; a ratio above {limits.max_ratio:g} is refused."
        )
    return entries


class _BoundedDirectory(io.FileIO):
    """The file as zipfile may see it while it reads the directory, which it holds in memory whole.

    A directory of a million names costs a gigabyte, so it is bounded before zipfile makes an object of each name.
    """

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        super().__init__(path)
        self._max_entries = limits.max_entries
        self._max_bytes = max(limits.max_entries * _DIRECTORY_BYTES_PER_ENTRY, _DIRECTORY_BYTES_AT_LEAST)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, unless it is more than the directory of an acceptable zip has.

        Raises
        ------
        HostileArchive
            The directory is too long, or names too many entries.
        """
        rest = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted > self._max_bytes:
            raise HostileArchive(f"The zip's directory is longer than {self._max_bytes} bytes.")
        data = super().read(wanted) or b""
        if data.count(_DIRECTORY_SIGNATURE) > self._max_entries:
            raise _too_many_entries(self._max_entries)
        return data


def _directory_of(path: Path, limits: ArchiveLimits) -> list[zipfile.ZipInfo]:
    try:
        with _BoundedDirectory(path, limits) as file, zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, OverflowError, NotImplementedError) as error:
        raise NotAnArchive(f"The upload is not a readable zip archive ({error}); send a .zip file.") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # zipfile sought to an offset that is no place in a file
            raise NotAnArchive("The upload is not a readable zip archive; send a .zip file.") from error
        raise


def check_archive(path: Path, limits: ArchiveLimits) -> list[ArchiveEntry]:
    """Read a zip's directory and accept or refuse the whole archive.

    Raises
    ------
    NotAnArchive
        The file is not a zip, or its directory is damaged.
    HostileArchive
        It breaks a rule of this module.
    """
    return check_entries(_directory_of(path, limits), limits, packed_bytes=path.stat().st_size)

"""What an acceptable zip is: one rule, asked at the post by private_api and again by the consumer.

Refused are names that leave the folder (``..`` behind either slash, absolute names, drive letters), links, devices,
encrypted entries, two entries of one name, a file where another entry needs a folder, and bombs: too many entries, too
much in total, or a ratio that no honest file has. Sizes here are the declared ones; whoever unpacks counts real bytes.
"""

import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contracts.errors import HostileArchive, NotAnArchive

_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
_COMPRESSION_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_NAME_BYTES = 255
_PATH_BYTES = 2048
_RATIO_FREE_BYTES = 10 * 2**20
"""Below this total no ratio is too high: a page of zeros compresses a thousandfold and harms nobody."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds of one archive: entries, bytes unpacked, and bytes unpacked per byte packed."""

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
    return name.endswith("/") or mode == stat.S_IFDIR


def check_entries(
    infos: Iterable[zipfile.ZipInfo], limits: ArchiveLimits, packed_bytes: int
) -> list[ArchiveEntry]:
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
            raise HostileArchive(f"The zip holds more than {limits.max_entries} entries.")
    for path in seen:
        for parent in path.parents:
            if seen.get(parent) is False:
                raise HostileArchive(f"The zip holds {str(parent)!r} both as a file and as a folder.")
    if total > limits.max_unpacked_bytes:
        raise HostileArchive(f"The zip unpacks to {total} bytes; the limit is {limits.max_unpacked_bytes}.")
    if total > _RATIO_FREE_BYTES and total > limits.max_ratio * max(packed_bytes, 1):
        raise HostileArchive(
            f"The zip unpacks to {total} bytes from {packed_bytes}; a ratio above {limits.max_ratio:g} is refused."
        )
    return entries


def check_archive(path: Path, limits: ArchiveLimits) -> list[ArchiveEntry]:
    """Read a zip's directory and accept or refuse the whole archive.

    Raises
    ------
    NotAnArchive
        The file is not a zip, or its directory is damaged.
    HostileArchive
        It breaks a rule of this module.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise NotAnArchive(f"The upload is not a readable zip archive ({error}); send a .zip file.") from error
    return check_entries(infos, limits, packed_bytes=path.stat().st_size)

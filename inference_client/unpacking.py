"""An output zip, into a folder: all of it or nothing, and nothing outside of the folder."""

import secrets
import shutil
import zipfile
import zlib
from pathlib import Path

from contracts.archives import ArchiveEntry, ArchiveLimits, check_archive
from contracts.errors import HostileArchive, NotAnArchive
from inference_client.errors import ClientError
from inference_client.packing import DEEPEST

OUTPUT_LIMITS = ArchiveLimits(max_entries=1_000_000, max_unpacked_bytes=2**44, max_ratio=1100)
"""Wide, since outputs may be large and empty masks compress a thousandfold; deflate itself cannot do more than 1032."""

_CHUNK_BYTES = 2**20


def is_free(folder: Path) -> bool:
    """Whether the folder can take an output: it does not exist, or is an empty folder."""
    if not folder.exists():
        return not folder.is_symlink()
    return folder.is_dir() and not any(folder.iterdir())


def unpack(archive: Path, folder: Path, limits: ArchiveLimits = OUTPUT_LIMITS) -> None:
    """Unpack into a folder that does not exist or is empty; it appears whole or not at all.

    Raises
    ------
    ClientError
        The folder holds something, or the archive is damaged or holds entries that are refused.
    OSError
        Something cannot be written.
    """
    if not is_free(folder):
        raise ClientError(f"{folder} exists and is not an empty folder; name another one.")
    part = folder.with_name(f".{folder.name[:200]}.{secrets.token_hex(4)}.part")
    part.mkdir(parents=True)
    try:
        entries = _accepted(archive, limits)
        with zipfile.ZipFile(archive) as source:
            for entry in entries:
                _unpack_entry(source, entry, part)
        part.replace(folder)
    except (HostileArchive, NotAnArchive) as error:
        raise ClientError(f"The output is not unpacked: {error.message}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ClientError(f"The output is not unpacked, its zip is damaged: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _accepted(archive: Path, limits: ArchiveLimits) -> list[ArchiveEntry]:
    entries = check_archive(archive, limits)
    if any(len(entry.path.parts) > DEEPEST for entry in entries):
        raise HostileArchive(f"Its folders are nested more than {DEEPEST} deep.")
    return entries


def _unpack_entry(source: zipfile.ZipFile, entry: ArchiveEntry, folder: Path) -> None:
    target = folder / entry.path
    if entry.is_dir:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with source.open(entry.info) as packed, target.open("xb") as file:
        while chunk := packed.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > entry.info.file_size:
                raise HostileArchive(f"The entry {entry.path} holds more bytes than it declares.")
            file.write(chunk)

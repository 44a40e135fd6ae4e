"""Unpacking inputs and packing outputs; counts real bytes and never follows a link that a model left behind."""

import os
import shutil
import stat
import zipfile
from pathlib import Path

from contracts.archives import ArchiveLimits, check_archive
from contracts.errors import HostileArchive, NotAnArchive, UploadTooLarge

_COPY_BYTES = 2**20


def unpack(zip_path: Path, folder: Path, limits: ArchiveLimits) -> None:
    """Unpack a zip into an existing empty folder; files are readable and folders writable by every user of the container.

    Raises
    ------
    NotAnArchive, HostileArchive
        The archive is refused by ``contracts.archives``, or its real bytes differ from the declared ones.
    OSError
        The disk is full or cannot be written.
    """
    entries = check_archive(zip_path, limits)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            for entry in entries:
                target = folder / entry.path
                if entry.is_dir:
                    _make_folders(folder, target)
                    continue
                _make_folders(folder, target.parent)
                with archive.open(entry.info) as source, target.open("xb") as sink:
                    _copy_exactly(source, sink, entry.info.file_size)
                target.chmod(0o755 if (entry.info.external_attr >> 16) & 0o111 else 0o644)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise NotAnArchive(f"The zip is damaged: {error}.") from error
    except Exception as error:  # noqa: BLE001 - zlib.error and lzma.LZMAError share no base of their own
        if type(error).__module__ not in {"zlib", "_lzma"}:
            raise
        raise NotAnArchive(f"The zip is damaged: {error}.") from error

"""What stands in an endpoint's folder, and reading it; see :mod:`online_gateway.repository.repository`."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from online_gateway.durable_files import open_locked
from service_kit.logging import get_logger

log = get_logger(__name__)


class Accepted(msgspec.Struct, frozen=True):
    """What ``generation.json`` says."""

    number: int
    digest: str
    label: str
    engine: str
    content_bytes: int | None
    content_sha256: str | None


class Current(msgspec.Struct, frozen=True):
    """What ``current.json`` says."""

    number: int
    entry: dict[str, Any] | None = None


@dataclass
class Reservation:
    """A number, and a folder to prepare a generation in."""

    endpoint: str
    number: int
    content: Path | None
    based_on: int | None
    """The generation that was accepted when it began."""
    lock: int | None = field(repr=False)


Stamp = tuple[int, ...]
"""Changes with the files that say what is accepted."""


def stamp_of(path: Path) -> Stamp:
    """The file's stamp; empty where it is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def read_current(folder: Path) -> Current | None:
    """What is accepted; None where nothing is, or the file is spoilt, which is logged.

    Raises
    ------
    OSError
        It cannot be read now, which says nothing of what it holds.
    """
    path = folder / "current.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Current)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, msgspec.MsgspecError) as error:
        log.warning("generation_spoilt", path=str(path), error=str(error))
        return None


def current_number(folder: Path) -> int | None:
    """The accepted generation's number; None where none is."""
    current = read_current(folder)
    return None if current is None else current.number


def last_number(folder: Path) -> int:
    """The last number that was given out; 0 for none."""
    try:
        return int((folder / "last_number").read_bytes())
    except (FileNotFoundError, ValueError):
        return 0


def numbered(folder: Path) -> list[Path]:
    """The folders of its generations."""
    return [one for one in folder.iterdir() if one.name.isdecimal()] if folder.is_dir() else []


def is_free(generation: Path) -> bool:
    """Whether no gateway is trying it."""
    path = generation / "reserved"
    if not path.exists():
        return True
    descriptor = open_locked(path)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def remove_generation(folder: Path) -> None:
    """First what makes it whole, so that a half-removed one is never taken for one."""
    (folder / "generation.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_unlocked(path: Path) -> None:
    """Remove a file unless somebody is at work on it."""
    descriptor = open_locked(path)
    if descriptor is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def let_go(reservation: Reservation) -> None:
    """Unlock what was reserved."""
    if reservation.lock is not None:
        os.close(reservation.lock)
        reservation.lock = None

"""Files that are there whole or not at all, also after a loss of power, and locks that end with their process."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from contracts.errors import StorageFull, Unavailable
from service_kit.deadline import Deadline, wait_until

TEMPORARY_SUFFIX = ".tmp"
_LOCK_TIME = timedelta(seconds=10)


@contextmanager
def disk_errors(*passed: type[OSError]) -> Iterator[None]:
    """Say what the disk refused in the platform's words; those that are ``passed`` mean something to the caller.

    Raises
    ------
    StorageFull, Unavailable
    """
    try:
        yield
    except passed:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("The disk that holds the models is full; delete some or tell the operator.") from error
        raise Unavailable(f"The folder of the models cannot be used ({error}); tell the operator.") from error


def flush_folder(folder: Path) -> None:
    """Put to disk which files the folder holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Replace the file, which is then on disk; whoever writes it holds a lock. Its name needs :func:`flush_folder`."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte, also where the system takes a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def open_locked(path: Path) -> int | None:
    """The descriptor of the file, made if it is not there, with its lock; None while another one has that.

    The lock is the file's, also when it gets another name, and ends when the descriptor is closed or the process dies.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock among all threads and processes.

    Raises
    ------
    Unavailable
        Another one has it for ten seconds.
    """
    held: list[int] = []

    def take() -> bool:
        descriptor = open_locked(path)
        held.extend(() if descriptor is None else (descriptor,))
        return bool(held)

    if not wait_until(take, Deadline(_LOCK_TIME), every=timedelta(milliseconds=5)):
        raise Unavailable(f"Another gateway holds {path} for too long; is it stopped in the middle of something?")
    try:
        yield
    finally:
        os.close(held[0])

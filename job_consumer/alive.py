"""``python -m job_consumer.alive``: status 0 where the consumer gave a sign of life in the last 45 seconds, else 1.

A consumer writes the time of the monotonic clock, which no clock adjustment moves, into a file of its own in the
folder for temporary files. That folder is a tmpfs where the root file system is read-only, and the file is named by its
process, so that several consumers of one host do not meet. The file is locked while its process lives: one that was
killed is not taken for one that hangs. What a sign of life proves is said in ``pulse``.

The command needs the standard library alone. Without an argument it wants a sign of each consumer that it finds, which
in a container is the one; with the id of a process it looks at that one.
"""

import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path

FRESH_SECONDS = 45.0
"""The oldest sign of life that counts; several are given in that time."""

_PREFIX, _SUFFIX = "inference-server-consumer-", ".alive"


def _path(folder: Path | None, pid: int) -> Path:
    return (folder or Path(tempfile.gettempdir())) / f"{_PREFIX}{pid}{_SUFFIX}"


class AliveFile:
    """The sign of life of this process.

    Raises
    ------
    OSError
        The folder cannot be written, the name is taken by another user, or somebody looks at a dead namesake's file
        just now.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = _path(folder, os.getpid())
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.write()
        except OSError:
            os.close(self._file)
            raise

    def write(self) -> None:
        """Give a sign of life."""
        os.pwrite(self._file, f"{time.monotonic():020.3f}\n".encode(), 0)

    def close(self) -> None:
        """Take the file away: this process ends on purpose."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _age_of(path: Path) -> float | None:
    """Seconds since the last sign of life; None where the process is gone, or is none of ours to judge."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(file, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = opened.read()
            return time.monotonic() - float(written) if written else 0.0  # empty: it is being made
    return None


def trouble(pid: int | None = None, folder: Path | None = None) -> str | None:
    """Why the consumer, or one of all that are found, does not count as alive; None when it does."""
    pattern = f"{_PREFIX}*{_SUFFIX}" if pid is None else _path(folder, pid).name
    ages = {path: _age_of(path) for path in sorted(_path(folder, 0).parent.glob(pattern))}
    living = {path: age for path, age in ages.items() if age is not None}
    if not living:
        return "no consumer runs" + ("" if pid is None else f" as process {pid}")
    for path, age in living.items():
        if age > FRESH_SECONDS:
            who = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            return f"the consumer that is process {who} gave no sign of life for {age:.0f} s"
    return None


def main(arguments: list[str]) -> int:
    """Look; the exit status."""
    if len(arguments) > 1 or not all(argument.isdecimal() for argument in arguments):
        sys.stderr.write("usage: python -m job_consumer.alive [PID]\n")
        return 1
    found = trouble(int(arguments[0]) if arguments else None)
    if found is None:
        return 0
    sys.stderr.write(found + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

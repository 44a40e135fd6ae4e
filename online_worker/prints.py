"""Where the prints of a model's code go: to the standard error, and nowhere if that is gone."""

import io
import os
import sys
from contextlib import suppress
from typing import Any

_STDOUT, _STDERR = 1, 2


class _Stderr(io.RawIOBase):
    """The process's standard error; what cannot be written is dropped.

    A worker outlives its gateway, at the other end of the pipe: then a ``print`` would raise, and fail its call.
    """

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return _STDERR

    def isatty(self) -> bool:
        return os.isatty(_STDERR)

    def write(self, data: Any, /) -> int:  # any buffer; its type has a name from Python 3.12 on
        with suppress(OSError):
            return os.write(_STDERR, data)
        return memoryview(data).nbytes


def give_prints_a_place() -> None:
    """Send Python's prints, and those of libraries of C, to the standard error."""
    with suppress(OSError):  # it may be closed
        os.dup2(_STDERR, _STDOUT)
    sys.stdout = _text()
    sys.stderr = _text()


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(_Stderr()), "utf-8", "backslashreplace", line_buffering=True)

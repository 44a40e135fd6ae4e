"""Generations' contents on their way from a gateway into files."""

import itertools
from pathlib import Path


class ContentBroken(Exception):
    """What arrived is not as long as it was announced."""


class Contents:
    """Files below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def receive(self, size: int) -> "Arrival":
        """A file for so many bytes.

        Raises
        ------
        OSError
            It cannot be made.
        """
        return Arrival(self._folder / f"content-{next(self._numbers)}", size)


class Arrival:
    """One content that is arriving; not as long as announced is as good as nothing.

    Whether it is the right one is no question here: the gateway computed the digest from the very file that it sends.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._size = size
        self._arrived = 0
        self._file = path.open("xb")

    def take(self, data: bytes, *, is_last: bool) -> bool:
        """Write a piece; whether that was all of it.

        Raises
        ------
        ContentBroken
            There is too much of it, or too little at its end.
        OSError
            It cannot be written.
        """
        self._arrived += len(data)
        if self._arrived > self._size or (is_last and self._arrived < self._size):
            raise ContentBroken(f"The content was announced with {self._size} bytes; {self._arrived} arrived.")
        self._file.write(data)
        if is_last:
            self._file.close()
        return is_last

    def discard(self) -> None:
        """Remove the file."""
        try:
            self._file.close()  # writes what is buffered: on a full disk it fails again
        finally:
            self.path.unlink(missing_ok=True)

"""What one of the gateways that share a data folder has there for itself: its socket, and the records of its children.

The first gateway on a folder is number 1, another one beside it number 2. A number is free again when its gateway is
dead, so that the next gateway finds the socket that orphaned workers dial, and the records of them.
"""

import os
from pathlib import Path
from typing import Self

from contracts.errors import Conflict
from online_gateway.durable_files import open_locked, write_durably

_MOST_GATEWAYS = 16
_TOKEN_FILE = "worker_token"  # noqa: S105 - the name of a file


class Place:
    """Held until it is released, or the process dies."""

    def __init__(self, folder: Path, number: int, lock: int) -> None:
        suffix = "" if number == 1 else f"-{number}"
        self._folder = folder
        self._lock = lock
        self.worker_socket = folder / f"workers{suffix}.sock"
        self.worker_records = folder / f"local_workers{suffix}.json"
        self.support_records = folder / f"support_processes{suffix}.json"

    @classmethod
    def take(cls, folder: Path) -> Self:
        """The first free place.

        Raises
        ------
        OSError
            The folder cannot be written.
        Conflict
            So many gateways share the folder that this must be a mistake.
        """
        for number in range(1, _MOST_GATEWAYS + 1):
            lock = open_locked(folder / f"gateway-{number}.lock")
            if lock is not None:
                return cls(folder, number, lock)
        raise Conflict(f"{_MOST_GATEWAYS} gateways use {folder} already; give this one a DATA_DIR of its own.")

    def token_file(self, token: str) -> Path:
        """A file with the worker token, which only its owner can read.

        Raises
        ------
        OSError
        """
        path = self._folder / _TOKEN_FILE
        if not path.exists() or path.read_bytes() != token.encode():
            write_durably(path, token.encode())
        return path

    def release(self) -> None:
        """Let another gateway have it."""
        os.close(self._lock)

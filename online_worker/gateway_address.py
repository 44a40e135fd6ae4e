"""Where a gateway awaits its workers: ``tcp://host:5010`` on any host, ``unix:///path`` on its own."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from contracts.worker_protocol import UNIX_BUFFER_BYTES

DEFAULT_PORT = 5010
_LONGEST_UNIX_PATH = 100
"""Bytes. The kernel's structure for addresses holds 107 and a zero; see unix(7)."""


@dataclass(frozen=True)
class TcpAddress:
    """A gateway on some host."""

    host: str
    port: int

    def connect(self, timeout: timedelta) -> socket.socket:
        """A connection.

        Raises
        ------
        OSError
            There is none to be had.
        """
        connection = socket.create_connection((self.host, self.port), timeout.total_seconds())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """A gateway on this host."""

    path: Path

    def connect(self, timeout: timedelta) -> socket.socket:
        """A connection.

        Raises
        ------
        OSError
            There is none to be had.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout.total_seconds())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)
            with _short(self.path) as path:
                connection.connect(path)
        except OSError:
            connection.close()
            raise
        return connection

    def __str__(self) -> str:
        return f"unix://{self.path}"


GatewayAddress = TcpAddress | UnixAddress


def gateway_addresses(text: str) -> list[GatewayAddress]:
    """The addresses in a list with commas.

    Raises
    ------
    ValueError
        One of them is none, or one is there twice; the message says which.
    """
    addresses = [_gateway_address(part.strip()) for part in text.split(",") if part.strip()]
    if not addresses:
        raise ValueError("names no gateway; write tcp://host:5010 or unix:///path")
    if len(set(addresses)) != len(addresses):
        raise ValueError("names a gateway twice")
    return addresses


def _gateway_address(text: str) -> GatewayAddress:
    try:
        parts = urlsplit(text)
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:  # the port is no number, or the brackets of an IPv6 address do not match
        raise ValueError(f"'{text}' is no address: {error}") from error
    if parts.scheme == "tcp" and parts.hostname and port and parts.path in {"", "/"}:
        return TcpAddress(parts.hostname, port)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return UnixAddress(Path(text.removeprefix("unix://")))
    raise ValueError(f"'{text}' is no address of a gateway; write tcp://host:{DEFAULT_PORT} or unix:///path")


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path, or where it is longer than an address may be another one to the same socket."""
    if len(os.fsencode(path)) <= _LONGEST_UNIX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

"""One connection to a gateway, after the handshake: frames in and frames out, and never a wait."""

import socket
import threading
import time
from contextlib import suppress

from contracts.worker_protocol import FrameReader, FromWorker, frame

_RECEIVE_BYTES = 2**20


class StreamClosed(Exception):
    """The other side closed the connection, or it broke."""


class Stream:
    """One thread reads; any thread sends."""

    def __init__(self, connection: socket.socket, reader: FrameReader) -> None:
        connection.setblocking(False)
        self.heard = time.monotonic()
        """When the gateway last said something."""
        self._socket = connection
        self._reader = reader
        self._arrived = memoryview(bytearray(_RECEIVE_BYTES))
        self._unsent = bytearray()
        self._lock = threading.Lock()
        self._is_open = True

    def fileno(self) -> int:
        """The socket's number, for selectors."""
        return self._socket.fileno()

    def receive(self) -> list[bytes]:
        """The bodies of the frames that are whole by now.

        Raises
        ------
        StreamClosed
            There will be no more.
        ProtocolError
            What arrives is no frame.
        """
        try:
            count = self._socket.recv_into(self._arrived)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise StreamClosed(str(error)) from error
        if not count:
            raise StreamClosed("it closed the connection")
        self.heard = time.monotonic()
        return list(self._reader.feed(self._arrived[:count]))

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has something to do once the socket can be written."""
        return bool(self._unsent)

    def send(self, message: FromWorker) -> None:
        """Send it, or keep what the socket does not take. A broken connection shows when it is read.

        Raises
        ------
        ProtocolError
            The message cannot be framed.
        """
        data = frame(message)
        with self._lock:
            if not self._is_open:
                return
            if self._unsent:
                self._unsent += data
            else:
                sent = self._write(data)
                if sent < len(data):
                    self._unsent += memoryview(data)[sent:]

    def flush(self) -> None:
        """Send what was kept, as far as the socket takes it."""
        with self._lock:
            if self._is_open and self._unsent:
                del self._unsent[: self._write(self._unsent)]

    def _write(self, data: bytearray) -> int:
        """The number of bytes that need no other try."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return len(data)

    def finish(self) -> None:
        """Tell the gateway that nothing more will come; it then closes the connection."""
        with self._lock, suppress(OSError):  # it may be gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._is_open = False
            self._unsent.clear()
            self._socket.close()

"""A TCP proxy that tests can cut or gag, to put a real network failure at an exact point of a conversation."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

_POLL_SECONDS = 0.05


class TcpProxy:
    """Forwards a local port to a target. All methods may be called while connections are open."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._stopping = threading.Event()
        self._open_gate = threading.Event()
        self._open_gate.set()
        self._answers_pass = threading.Event()
        self._answers_pass.set()
        self._requests_pass = threading.Event()
        self._requests_pass.set()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.accepted = 0
        """Connections so far."""
        self.client_sends = 0
        """How often a client sent something, in chunks as they came."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """Close all connections, as a broken cable and a reset would; new ones are accepted."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Cut all connections and drop new ones meanwhile."""
        self._open_gate.clear()
        self.cut()
        try:
            yield
        finally:
            self._open_gate.set()

    @contextmanager
    def without_answers(self) -> Iterator[None]:
        """What the client sends arrives; what the server answers meanwhile is kept back."""
        self._answers_pass.clear()
        try:
            yield
        finally:
            self._answers_pass.set()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """What either side sends is kept back meanwhile, and no connection is closed: a cable that nobody misses."""
        self._requests_pass.clear()
        try:
            with self.without_answers():
                yield
        finally:
            self._requests_pass.set()

    def close(self) -> None:
        """Cut everything and stop."""
        self._stopping.set()
        self._answers_pass.set()
        self._requests_pass.set()
        self.cut()
        for thread in list(self._threads):
            thread.join(60)
        self._listener.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                server = socket.create_connection(self._target, timeout=30) if self._open_gate.is_set() else None
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            server.settimeout(None)
            self.accepted += 1
            with self._lock:
                self._sockets += [client, server]
            self._start(self._pump, client, server, self._requests_pass)
            self._start(self._pump, server, client, self._answers_pass)

    def _pump(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if gate is self._requests_pass:
                    self.client_sends += 1
                gate.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

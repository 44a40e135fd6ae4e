"""The worker's one loop: it reads every gateway's stream, and answers calls in between.

Blocking sockets behind a selector, and no asyncio: a small call is answered within some ten microseconds here, and the
machinery of tasks and futures alone takes as long.
"""

import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from functools import partial

from contracts.worker_protocol import Calls, Cancel, Leaving, ProtocolError, Welcome
from online_worker.contents import Contents
from online_worker.dialer import Dialer
from online_worker.heartbeat import Heart
from online_worker.loader import Loader
from online_worker.session import Services, Session
from online_worker.stream import Stream, StreamClosed
from online_worker.watchdog import Watchdog
from online_worker.work import Work
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_LOOK_SECONDS = 0.1
"""So often it looks at what the clock alone tells."""
_SETTLE_SECONDS = 0.25
"""A worker that leaves has answered everything when no call came for so long: some may have been on their way."""
_FAREWELL = timedelta(seconds=1)
"""A gateway closes its side within so long after the last answer."""
_KEEP_SECONDS = 60.0
"""A gateway that came back asks within so long for what it had loaded before; the rest is closed."""


class Ending(Enum):
    """Why the loop ended."""

    STOPPED = auto()
    """It was told to."""
    AWAY = auto()
    """There was no gateway for too long."""
    REFUSED = auto()
    """No gateway will ever take it in."""


@dataclass
class _Line:
    """A gateway that is connected."""

    dialer: Dialer
    session: Session
    since: float = field(default_factory=time.monotonic)
    last_call: float = 0.0
    events: int = selectors.EVENT_READ
    farewell: Deadline | None = None
    """The last answer is out; the gateway may close until then."""


class Loop:
    """One thread calls :meth:`run`, and all else happens there; the other public methods are for any thread."""

    def __init__(self, loader: Loader, contents: Contents, drain: timedelta, away: timedelta) -> None:
        """``drain``: calls at hand may take so long. ``away``: it ends after so long without a gateway; 0: never."""
        self._loader = loader
        self._services = Services(loader, contents, self.post, self.stop)
        self._drain = drain
        self._away = away.total_seconds()
        self._work = Work()
        self._lines: list[_Line] = []
        self._dialers: list[Dialer] = []
        self._heart = Heart(self.sessions, Watchdog(self._work))
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._is_over = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._leaving: Deadline | None = None
        self._last_seen = time.monotonic()
        self._next_look = 0.0
        self._ending: Ending | None = None

    def run(self, dialers: Sequence[Dialer]) -> Ending:
        """Serve the gateways that these dial, until there is a reason to end."""
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._last_seen = time.monotonic()
        self._dialers = list(dialers)
        self._heart.start()
        for dialer in dialers:
            dialer.start()
        try:
            while self._ending is None:
                self._turn()
            return self._ending
        finally:
            self._close()

    def post(self, call: Callable[[], None]) -> None:
        """Have it called in the loop's thread soon; never, if the loop has ended."""
        self._inbox.put(call)
        with suppress(OSError):  # it is full, so the loop is awake already, or the loop has ended
            self._rope.send(b"!")

    def stop(self) -> None:
        """Tell the gateways, answer what they gave, and end."""
        self.post(self._leave)

    def sessions(self) -> list[Session]:
        """The sessions now."""
        return [line.session for line in self._lines]

    def loaded(self) -> dict[str, list[str]]:
        """See :class:`online_worker.dialer.Switchboard`."""
        return self._loader.models.loaded()

    def connected(self, dialer: Dialer, stream: Stream, welcome: Welcome, bodies: list[bytes]) -> None:
        """See :class:`online_worker.dialer.Switchboard`."""
        with self._gate:
            if self._is_over:
                stream.close()
                return
            session = Session(stream, welcome, self._services, dialer.left_behind)
            self.post(partial(self._attach, _Line(dialer, session), bodies))

    def refused(self, dialer: Dialer, message: str) -> None:
        """See :class:`online_worker.dialer.Switchboard`."""
        log.error("gateway_refuses", gateway=str(dialer.address), reason=message)
        self.post(partial(self._dialers.remove, dialer))

    def _turn(self) -> None:
        for key, events in self._selector.select(0 if self._work else _LOOK_SECONDS):
            if key.data is None:
                self._answer_bell()
            else:
                self._attend(key.data, events)
        # Between reading and working: a gateway that spoke while a call took its time was read by now.
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look(now)
        if self._work:
            self._work.run_slice()
        for line in self._lines:
            self._watch(line)

    def _answer_bell(self) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(4096)
        self._empty_inbox()

    def _empty_inbox(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()

    def _attend(self, line: _Line, events: int) -> None:
        if not line.session.is_open:  # it was closed in this very turn
            return
        stream = line.session.stream
        try:
            if events & selectors.EVENT_WRITE:
                stream.flush()
            if events & selectors.EVENT_READ:
                for body in stream.receive():
                    self._take(line, body)
        except (StreamClosed, ProtocolError) as error:
            self._detach(line, str(error))

    def _take(self, line: _Line, body: bytes) -> None:
        message = line.session.take(body)
        if isinstance(message, Calls):
            line.last_call = time.monotonic()
            self._work.add(line.session, message)
        elif isinstance(message, Cancel):
            line.session.answer_skipped(self._work.cancel(line.session, message))

    def _watch(self, line: _Line) -> None:
        """Be told when a stream that was full can be written again."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.session.stream.has_unsent else 0)
        if events != line.events:
            line.events = events
            self._selector.modify(line.session.stream, events, line)

    def _attach(self, line: _Line, bodies: list[bytes]) -> None:
        if self._leaving is not None:
            line.session.end()
            return
        self._selector.register(line.session.stream, line.events, line)
        self._lines = [*self._lines, line]
        self._heart.look()
        try:
            for body in bodies:
                self._take(line, body)
        except ProtocolError as error:
            self._detach(line, str(error))

    def _detach(self, line: _Line, reason: str) -> None:
        self._selector.unregister(line.session.stream)
        self._lines = [other for other in self._lines if other is not line]
        self._work.drop(line.session)
        line.session.end()
        line.dialer.lost()
        if self._leaving is None:
            log.warning("gateway_lost", gateway=str(line.dialer.address), reason=reason)

    def _look(self, now: float) -> None:
        for line in self._lines:
            if now - line.session.stream.heard > line.session.silence_seconds:
                self._detach(line, f"it was silent for {line.session.silence_seconds:g} s")
            elif now - line.since > _KEEP_SECONDS:
                self._release_left_behind(line.dialer)
        if self._leaving is not None:
            self._look_whether_done(now, self._leaving)
        elif self._lines:
            self._last_seen = now
        elif not self._dialers:
            self._ending = Ending.REFUSED
        elif self._away and now - self._last_seen > self._away:
            self._ending = Ending.AWAY

    def _release_left_behind(self, dialer: Dialer) -> None:
        while dialer.left_behind:
            self._loader.models.release(dialer.left_behind.pop())

    def _leave(self) -> None:
        if self._leaving is not None:
            return
        self._leaving = Deadline(self._drain)
        log.info("worker_leaves", gateways=len(self._lines))
        for dialer in self._dialers:
            dialer.stop()
        now = time.monotonic()
        for line in self._lines:
            line.last_call = now
            line.session.stream.send(Leaving())

    def _look_whether_done(self, now: float, leaving: Deadline) -> None:
        for line in self._lines:
            if line.farewell is not None:
                if line.farewell.expired:
                    self._detach(line, "it did not close its side")
            elif self._has_answered_all(line, now):
                line.session.stream.finish()
                line.farewell = Deadline(_FAREWELL)
        if not self._lines or leaving.expired:
            self._ending = Ending.STOPPED

    def _has_answered_all(self, line: _Line, now: float) -> bool:
        is_settled = line.session.was_asked_to_leave or now - line.last_call > _SETTLE_SECONDS
        return is_settled and not self._work.waits_for(line.session) and not line.session.stream.has_unsent

    def _close(self) -> None:
        with self._gate:
            self._is_over = True
        for dialer in self._dialers:
            dialer.stop()
        self._leaving = self._leaving or Deadline(timedelta(0))
        self._empty_inbox()  # a connection may wait there
        for line in self._lines:
            self._detach(line, "the worker ends")
        self._heart.stop()
        self._selector.close()
        self._bell.close()
        self._rope.close()

"""The loop that brings pending tasks from the outbox to the broker, at least once each.

Nothing is lost: a task leaves the outbox only after the broker has confirmed its message. Duplicates are allowed: the
claim is what gives a task to one consumer.
"""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta

from contracts.errors import Unavailable
from contracts.queue import ALL_QUEUES
from private_api.services.lost_messages import LossWatch
from private_api.storage.outbox import Outbox
from private_api.storage.queue import RabbitPublisher
from service_kit.backoff import Backoff
from service_kit.logging import get_logger

log = get_logger(__name__)

_OK = "ok"


class Publisher:
    """A thread that publishes what is due, for ever, whatever happens to broker and database.

    ``look_every`` bounds how long a task waits whose ``notify`` was lost, and how often the idle connection answers
    heartbeats; ``repair_every`` is the pause between two looks for lost messages.
    """

    def __init__(
        self,
        outbox: Outbox,
        broker: RabbitPublisher,
        *,
        queues: Sequence[str] = ALL_QUEUES,
        look_every: timedelta = timedelta(seconds=1),
        repair_every: timedelta = timedelta(seconds=30),
        longest_pause: timedelta = timedelta(seconds=10),
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._look_every = look_every
        self._repair_every = repair_every
        self._backoff = Backoff(most=longest_pause)
        self._watches = {queue: LossWatch() for queue in queues}
        self._next_repair = time.monotonic() + repair_every.total_seconds()
        self._state = "The publisher has not reached the broker yet."
        self._in_outage = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @property
    def state(self) -> str:
        """``ok``, or one sentence that says what is wrong."""
        return self._state

    def start(self) -> None:
        """Begin; returns at once, whether or not there is a broker."""
        self._thread.start()

    def notify(self) -> None:
        """A task was committed to the outbox. Cheap, from any thread."""
        self._wake.set()

    def stop(self, timeout: timedelta = timedelta(seconds=5)) -> None:
        """End after the batch in flight, within the timeout; what is left stays in the outbox."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._round()
                except Unavailable as error:
                    self._trouble(error)
                    self._stopping.wait(self._backoff.pause().total_seconds())
                else:
                    self._well()
                    self._wake.wait(self._look_every.total_seconds())
        finally:
            self._broker.close()
            self._state = "The publisher has stopped; restart private_api."

    def _round(self) -> None:
        self._wake.clear()  # before the look, so that a task committed after it wakes us again
        self._broker.keep_alive()
        while not self._stopping.is_set() and (due := self._outbox.due()):
            confirmed = self._broker.publish(due)
            if confirmed:
                self._outbox.mark_published(confirmed)
            if len(confirmed) < len(due):
                raise Unavailable(
                    f"The broker took {len(confirmed)} of {len(due)} messages; if that stays, see whether each of its "
                    "queues has a leader (rabbitmq-queues quorum_status QUEUE)."
                )
        if time.monotonic() >= self._next_repair:
            self._repair()
            self._next_repair = time.monotonic() + self._repair_every.total_seconds()

    def _repair(self) -> None:
        """Publish again what the broker should hold and does not.

        The broker is asked before the database: a task claimed between the two looks is then not counted as lost, and
        no other thread publishes meanwhile.
        """
        for queue, watch in self._watches.items():
            ready = self._broker.ready_messages(queue)
            pending = self._outbox.pending_published(queue)
            if watch.look(ready, pending):
                marked = self._outbox.mark_lost(queue, older_than=self._repair_every)
                log.warning("messages_lost", queue=queue, ready=ready, pending=pending, published_again=marked)
                self._wake.set()

    def _trouble(self, error: Unavailable) -> None:
        self._state = error.message
        for watch in self._watches.values():
            watch.forget()
        if not self._in_outage:
            self._in_outage = True
            log.warning("publisher_waits", reason=error.message)

    def _well(self) -> None:
        self._backoff.reset()
        self._state = _OK
        if self._in_outage:
            self._in_outage = False
            log.info("publisher_back")

"""Sending task ids to RabbitMQ: a synchronous face for one thread over pika's event-driven connection.

pika's BlockingConnection waits for the confirm of each single message (some 2,000 a second on one machine, fewer over a
network). Here a whole batch is written first and its confirms are awaited together, some thirty times as fast.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorException,
    AMQPConnectorPhaseErrorBase,
)
from pika.exceptions import AMQPError

from contracts.errors import Unavailable
from contracts.queue import ALL_QUEUES, QUEUE_ARGUMENTS
from contracts.tasks import TaskOffer
from private_api.storage.outbox import OutboxEntry
from service_kit.deadline import Deadline

_HEARTBEAT_SECONDS = 20
_CONNECT_SECONDS = 5
_HANDSHAKE_SECONDS = 10
_ANSWER = timedelta(seconds=15)
"""For a declaration; it takes milliseconds, or seconds while a quorum elects its leader."""
_CONFIRM = timedelta(seconds=60)
"""For one batch. Longer than heartbeats take to find a dead broker, which is the better diagnosis."""
_BLOCKED_SECONDS = 30
"""How long the broker may refuse to read (out of memory or disk) before the connection is given up."""
_GOODBYE = timedelta(seconds=2)

_BROKER_TROUBLE = (AMQPError, AMQPConnectorException, OSError)


def _parameters(url: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = _CONNECT_SECONDS
    parameters.stack_timeout = _HANDSHAKE_SECONDS
    parameters.blocked_connection_timeout = _BLOCKED_SECONDS
    parameters.connection_attempts = 1
    if parameters.heartbeat is None:
        parameters.heartbeat = _HEARTBEAT_SECONDS
    return parameters


def _root_cause(error: BaseException) -> BaseException:
    """The error of the last attempt, out of the wrapping that pika puts around it."""
    if isinstance(error, AMQPConnectionWorkflowFailed) and error.exceptions:
        error = error.exceptions[-1]
    if isinstance(error, AMQPConnectorPhaseErrorBase):
        error = error.exception
    return error


class _Session:
    """One connection with one confirming channel. After its first trouble it is only good for ``close``.

    All callbacks run inside ``_serve_until``, in the thread of the caller: none of this is shared between threads.
    """

    def __init__(self, parameters: pika.URLParameters) -> None:
        self._lost: BaseException | None = None
        self._closed = False
        self._channel: Any = None
        self._sent = 0
        self._unconfirmed: dict[int, OutboxEntry] = {}
        self._confirmed: list[OutboxEntry] = []
        self._returned: dict[str, str] = {}
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=self._on_connected,
            on_open_error_callback=self._on_connection_closed,
            on_close_callback=self._on_connection_closed,
        )
        self._loop = self._connection.ioloop

    def open(self, queues: Sequence[str]) -> None:
        """Wait for the channel and declare the queues."""
        # pika ends the attempt by itself, within the timeouts of its parameters; ours is only the longer stop.
        self._serve_until(lambda: self._channel is not None, 2 * _ANSWER, "open a channel")
        self._confirm_mode()
        for queue in queues:
            self.declare(queue)

    def declare(self, queue: str) -> int:
        """Create the queue unless it is there; how many messages wait in it."""
        counts: list[int] = []

        def answered(frame: Any) -> None:
            counts.append(frame.method.message_count)
            self._loop.stop()

        self._channel.queue_declare(queue, durable=True, arguments=dict(QUEUE_ARGUMENTS), callback=answered)
        self._serve_until(lambda: bool(counts), _ANSWER, f"declare {queue}")
        return counts[0]

    def publish(self, entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """Send all, wait for all answers; those that the broker took to its disks."""
        self._confirmed = []
        self._returned = {}
        for entry in entries:
            self._sent += 1
            self._unconfirmed[self._sent] = entry
            self._channel.basic_publish(
                exchange="",
                routing_key=entry.queue,
                body=TaskOffer(uid=entry.uid).model_dump_json().encode(),
                properties=pika.BasicProperties(
                    delivery_mode=pika.DeliveryMode.Persistent.value,
                    content_type="application/json",
                    message_id=str(entry.task_id),
                ),
                mandatory=True,
            )
        self._serve_until(lambda: not self._unconfirmed, _CONFIRM, f"confirm {len(entries)} messages")
        for queue in set(self._returned.values()):
            self.declare(queue)
        return [entry for entry in self._confirmed if str(entry.task_id) not in self._returned]

    def keep_alive(self) -> None:
        """Answer heartbeats and notice a lost connection; does not wait."""
        self._loop.call_later(0, self._loop.stop)
        self._loop.start()
        self._raise_if_lost()

    def close(self) -> None:
        """Say goodbye if the broker still listens, and free the sockets."""
        deadline = Deadline(_GOODBYE)
        with suppress(*_BROKER_TROUBLE):
            if not (self._connection.is_closing or self._connection.is_closed):
                self._connection.close()
            while not (self._closed or deadline.expired):
                self._turn(deadline)
        self._loop.close()

    def _serve_until(self, done: Callable[[], bool], within: timedelta, what: str) -> None:
        deadline = Deadline(within)
        while not done():
            self._raise_if_lost()
            if deadline.expired:
                raise Unavailable(f"The broker did not {what} within {within.total_seconds():g} s.")
            self._turn(deadline)

    def _turn(self, deadline: Deadline) -> None:
        """Read, write and run timers until a callback stops the loop."""
        alarm = self._loop.call_later(deadline.remaining.total_seconds(), self._loop.stop)
        self._loop.start()
        self._loop.remove_timeout(alarm)

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _confirm_mode(self) -> None:
        agreed: list[Any] = []

        def answered(frame: Any) -> None:
            agreed.append(frame)
            self._loop.stop()

        self._channel.add_on_return_callback(self._on_returned)
        self._channel.confirm_delivery(self._on_confirm, callback=answered)
        self._serve_until(lambda: bool(agreed), _ANSWER, "switch publisher confirms on")

    def _on_connected(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        self._channel = channel
        self._loop.stop()

    def _on_channel_closed(self, _: Any, reason: BaseException) -> None:
        self._lost = self._lost or reason
        self._loop.stop()

    def _on_connection_closed(self, _: Any, reason: BaseException | str) -> None:
        error = AMQPError(reason) if isinstance(reason, str) else reason
        self._lost = self._lost or error
        self._closed = True
        self._loop.stop()

    def _on_returned(self, _: Any, method: Any, properties: Any, __: bytes) -> None:
        """No such queue. The broker returns a message before it confirms it."""
        self._returned[properties.message_id] = method.routing_key

    def _on_confirm(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        tags = [known for known in self._unconfirmed if known <= tag] if frame.method.multiple else [tag]
        is_taken = isinstance(frame.method, pika.spec.Basic.Ack)
        for known in tags:
            entry = self._unconfirmed.pop(known)
            if is_taken:
                self._confirmed.append(entry)
        if not self._unconfirmed:
            self._loop.stop()


class RabbitPublisher:
    """Sends task ids to their queues, confirmed by the broker. Belongs to the one thread that uses it.

    It connects when it is first needed and again after each trouble. Every method but ``close`` raises Unavailable
    while the broker is away, after at most its connect timeout, and then holds no connection.

    Raises
    ------
    ValueError
        The URL is none that pika reads (``amqp://user:password@host:port/vhost``).
    """

    def __init__(self, url: str, queues: Sequence[str] = ALL_QUEUES) -> None:
        self._parameters = _parameters(url)
        self._queues = tuple(queues)
        self._session: _Session | None = None

    def publish(self, entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """Send a batch; the entries that the broker has stored, which may be fewer when it refuses some.

        Messages of a batch that raises may have been stored too: sending it again makes duplicates, never losses. A
        queue that was deleted is declared again, and its entries are left for the next call.
        """
        with self._broker() as session:
            return session.publish(entries)

    def ready_messages(self, queue: str) -> int:
        """How many messages of the queue wait for a consumer; the queue is created when it is not there."""
        with self._broker() as session:
            return session.declare(queue)

    def keep_alive(self) -> None:
        """Connect if there is no connection, else answer its heartbeats; call it every few seconds while idle."""
        with self._broker() as session:
            session.keep_alive()

    def close(self) -> None:
        """Let go of the connection; never raises."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    @contextmanager
    def _broker(self) -> Iterator[_Session]:
        try:
            if self._session is None:
                self._session = _Session(self._parameters)
                self._session.open(self._queues)
            yield self._session
        except _BROKER_TROUBLE as error:
            self.close()
            cause = _root_cause(error)
            where = f"{self._parameters.host}:{self._parameters.port}"
            raise Unavailable(f"The broker at {where} is away ({type(cause).__name__}: {cause}).") from error
        except Unavailable:
            self.close()
            raise

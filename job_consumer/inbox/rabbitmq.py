"""Task ids from RabbitMQ: one message at a time, and none while busy.

Two threads meet here. The consumer's asks, settles and gives back; the link's owns the connection, which is the only
way to answer heartbeats during a run of many hours. Between them stand one condition and a few fields; the consumer's
thread touches no pika object, save for the one method that pika allows.

How a message is taken: if one waits already it is fetched alone (``basic.get``), the first queue before the second, and
nothing is subscribed. Else all queues are subscribed with prefetch 1 each; the first message is handed over, and the
subscriptions are cancelled before it is acknowledged, unless the consumer asks for the next by then. As an
unacknowledged message blocks its own queue's subscription, only another queue's could deliver one more meanwhile, which
goes straight back.
"""

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ConsumerCancelled
from pydantic import ValidationError

from contracts.queue import QUEUE_ARGUMENTS
from contracts.tasks import TaskOffer, short_uid
from job_consumer.inbox.base import Offer
from service_kit.backoff import Backoff
from service_kit.logging import get_logger

log = get_logger(__name__)

_HEARTBEAT_SECONDS = 20
_CONNECT_SECONDS = 5
_HANDSHAKE_SECONDS = 10
_TURN_SECONDS = 1.0
"""The longest sleep of the link's thread; asking wakes it at once, heartbeats are timed by pika within it."""
_GOODBYE_SECONDS = 5.0

_BROKER_TROUBLE = (AMQPError, AMQPConnectorException, OSError)


def _parameters(url: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = _CONNECT_SECONDS
    parameters.stack_timeout = _HANDSHAKE_SECONDS
    parameters.connection_attempts = 1
    if parameters.heartbeat is None:
        parameters.heartbeat = _HEARTBEAT_SECONDS
    return parameters


@dataclass(frozen=True)
class RabbitOffer:
    """One unacknowledged message. Its tag means something on the connection of its epoch alone."""

    uid: str
    tag: int
    epoch: int


@dataclass(frozen=True)
class _Answer:
    """What the consumer made of an offer."""

    offer: RabbitOffer
    is_settled: bool


class _Handover:
    """Where the two threads meet. All methods may be called from either."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_wanted = False
        self._offer: RabbitOffer | None = None
        self._answers: deque[_Answer] = deque()
        self.closed = threading.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether the consumer waits for an offer."""
        with self._changed:
            return self._is_wanted and not self.closed.is_set()

    def ask(self) -> None:
        """The consumer is ready for one offer."""
        with self._changed:
            self._is_wanted = True

    def wait(self, timeout: timedelta) -> RabbitOffer | None:
        """The offer, or None when the time is up; from then on none is wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._offer is not None or self.closed.is_set(), timeout.total_seconds())
            self._is_wanted = False
            offer, self._offer = self._offer, None
            return offer

    def hand_over(self, offer: RabbitOffer) -> bool:
        """Give the consumer an offer; False when it wants none (any more)."""
        with self._changed:
            if not self._is_wanted or self.closed.is_set():
                return False
            self._is_wanted = False
            self._offer = offer
            self._changed.notify_all()
            return True

    def answer(self, answer: _Answer) -> None:
        """The consumer is done with an offer."""
        with self._changed:
            self._answers.append(answer)

    def take_answers(self) -> list[_Answer]:
        """What the link has to tell the broker."""
        with self._changed:
            answers = list(self._answers)
            self._answers.clear()
            return answers

    def close(self) -> None:
        """No more offers."""
        with self._changed:
            self.closed.set()
            self._changed.notify_all()


class _Link:
    """One connection, from its opening to its loss. Used by the link's thread alone, but for ``wake``."""

    def __init__(self, parameters: pika.URLParameters, queues: Sequence[str], handover: _Handover, epoch: int) -> None:
        self._queues = queues
        self._handover = handover
        self._epoch = epoch
        self._subscribed: dict[str, str] = {}
        self._connection = pika.BlockingConnection(parameters)
        self._channel: Any = None

    def open(self) -> None:
        """Open the channel and make sure of the queues."""
        self._channel = self._connection.channel()
        self._channel.basic_qos(prefetch_count=1)  # per subscription; quorum queues know no other kind
        self._channel.add_on_cancel_callback(self._on_cancelled_by_broker)
        for queue in self._queues:
            self._declare(queue)

    def wake(self) -> None:
        """Have the link look at the handover now. From any thread."""
        try:
            self._connection.add_callback_threadsafe(lambda: None)
        except _BROKER_TROUBLE:
            return  # the connection is going down; the next one looks there before it sleeps

    def serve(self) -> None:
        """Work until the inbox is closed; raises pika's errors when the connection is lost."""
        while not self._handover.closed.is_set():
            if not self._handover.is_wanted:
                self._unsubscribe()
            self._send_answers()
            if self._handover.is_wanted and not self._subscribed and not self._fetch_one():
                self._subscribe()
            self._connection.process_data_events(time_limit=_TURN_SECONDS)
        self._unsubscribe()
        self._send_answers()

    def close(self) -> None:
        """Leave; the broker puts back what was not answered. Never raises."""
        if self._connection.is_open:
            with suppress(*_BROKER_TROUBLE):
                self._connection.close()

    def _declare(self, queue: str) -> int:
        """Create the queue unless it is there; how many messages wait in it."""
        answer = self._channel.queue_declare(queue, durable=True, arguments=dict(QUEUE_ARGUMENTS))
        return int(answer.method.message_count)

    def _fetch_one(self) -> bool:
        """Take one waiting message, of the first queue that has any; whether the consumer got it."""
        for queue in self._queues:
            if not self._declare(queue):
                continue
            method, _, body = self._channel.basic_get(queue)
            if method is not None and self._hand_over(method.delivery_tag, body, queue):
                return True
        return False

    def _subscribe(self) -> None:
        for queue in self._queues:
            tag = self._channel.basic_consume(queue, self._on_message)
            self._subscribed[tag] = queue

    def _unsubscribe(self) -> None:
        """Cancel all; pika sends back what arrives meanwhile."""
        while self._subscribed:
            tag, _ = self._subscribed.popitem()
            self._channel.basic_cancel(tag)

    def _on_message(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        self._hand_over(method.delivery_tag, body, method.routing_key)

    def _hand_over(self, tag: int, body: bytes, queue: str) -> bool:
        try:
            uid = TaskOffer.model_validate_json(body).uid
        except ValidationError:
            log.warning("message_dropped", reason="it is no task offer", queue=queue, bytes=len(body))
            self._channel.basic_ack(tag)
            return False
        if self._handover.hand_over(RabbitOffer(uid=uid, tag=tag, epoch=self._epoch)):
            return True
        self._channel.basic_nack(tag, requeue=True)
        return False

    def _on_cancelled_by_broker(self, frame: Any) -> None:
        """A queue was deleted, or lost its leader.

        Only a new connection heals that: RabbitMQ 3.10 may keep a ghost of the subscription in the old channel, which
        takes a message of the queue's successor and never delivers it.
        """
        queue = self._subscribed.get(frame.method.consumer_tag)
        raise ConsumerCancelled(f"the broker cancelled the subscription to {queue}")

    def _send_answers(self) -> None:
        for answer in self._handover.take_answers():
            if answer.offer.epoch != self._epoch:
                # The broker took the message back with its connection; the claim decides who runs the task.
                log.info("answer_too_late", task=short_uid(answer.offer.uid), settled=answer.is_settled)
            elif answer.is_settled:
                self._channel.basic_ack(answer.offer.tag)
            else:
                self._channel.basic_nack(answer.offer.tag, requeue=True)


class RabbitInbox:
    """Offers from the queues, the first one preferred. Connects by itself, again and again, whatever the broker does.

    Raises
    ------
    ValueError
        The URL is none that pika reads (``amqp://user:password@host:port/vhost``).
    """

    def __init__(self, url: str, queues: Sequence[str], *, longest_pause: timedelta = timedelta(seconds=10)) -> None:
        self._parameters = _parameters(url)
        self._queues = tuple(queues)
        self._backoff = Backoff(most=longest_pause)
        self._handover = _Handover()
        self._link: _Link | None = None
        self._in_outage = False
        self._thread = threading.Thread(target=self._keep_linked, name="inbox", daemon=True)
        self._thread.start()

    def next(self, timeout: timedelta) -> Offer | None:
        """Wait for an offer, at most so long; None when there was none or the broker is away."""
        self._handover.ask()
        self._wake_link()
        offer = self._handover.wait(timeout)
        if offer is None:
            self._wake_link()  # to cancel the subscription: a consumer that does not ask holds nothing
        return offer

    def settle(self, offer: Offer) -> None:
        """Acknowledge the message, as soon as the link gets to it; dropped when its connection is gone."""
        self._answer(offer, is_settled=True)

    def give_back(self, offer: Offer) -> None:
        """Put the message back on its queue; the broker does so itself when the connection is gone."""
        self._answer(offer, is_settled=False)

    def close(self) -> None:
        """Send the last answers and leave, within a few seconds; an offer in hand goes back to its queue."""
        self._handover.close()
        self._wake_link()
        self._thread.join(_GOODBYE_SECONDS)

    def _answer(self, offer: Offer, *, is_settled: bool) -> None:
        if not isinstance(offer, RabbitOffer):
            raise TypeError(f"{type(offer).__name__} is no offer of this inbox.")
        self._handover.answer(_Answer(offer, is_settled))
        self._wake_link()

    def _wake_link(self) -> None:
        link = self._link
        if link is not None:
            link.wake()

    def _keep_linked(self) -> None:
        epoch = 0
        while not self._handover.closed.is_set():
            epoch += 1
            try:
                self._link = link = _Link(self._parameters, self._queues, self._handover, epoch)
                try:
                    link.open()
                    self._well()
                    link.serve()
                finally:
                    link.close()
            except _BROKER_TROUBLE as error:
                self._trouble(error)
                self._handover.closed.wait(self._backoff.pause().total_seconds())

    def _well(self) -> None:
        self._backoff.reset()
        if self._in_outage:
            self._in_outage = False
            log.info("inbox_back", broker=self._parameters.host)

    def _trouble(self, error: BaseException) -> None:
        if not self._in_outage:
            self._in_outage = True
            log.warning("inbox_waits", broker=self._parameters.host, reason=f"{type(error).__name__}: {error}")

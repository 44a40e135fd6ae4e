import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from contracts.queue import QUEUE_CPU, QUEUE_GPU
from job_consumer.inbox.base import Offer
from job_consumer.inbox.rabbitmq import RabbitInbox
from tests.support.rabbitmq import RabbitQueues
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

SOON = timedelta(seconds=30)
BRIEFLY = timedelta(milliseconds=300)
SHORT_PAUSE = timedelta(milliseconds=100)


@pytest.fixture
def inbox(rabbitmq_url: str) -> Iterator[RabbitInbox]:
    with closing(RabbitInbox(rabbitmq_url, [QUEUE_GPU, QUEUE_CPU], longest_pause=SHORT_PAUSE)) as inbox:
        yield inbox


@pytest.fixture
def proxy(rabbitmq_url: str) -> Iterator[TcpProxy]:
    where = urlsplit(rabbitmq_url)
    with TcpProxy((where.hostname or "localhost", where.port or 5672)) as proxy:
        yield proxy


@pytest.fixture
def inbox_behind_proxy(rabbitmq_url: str, proxy: TcpProxy) -> Iterator[RabbitInbox]:
    where = urlsplit(rabbitmq_url)
    url = where._replace(netloc=f"{where.username}:{where.password}@127.0.0.1:{proxy.port}").geturl()
    with closing(RabbitInbox(url + "?heartbeat=1", [QUEUE_CPU], longest_pause=SHORT_PAUSE)) as inbox:
        yield inbox


def taken(offer: Offer | None) -> Offer:
    assert offer is not None
    return offer


def settle_next(inbox: RabbitInbox) -> str:
    offer = taken(inbox.next(SOON))
    inbox.settle(offer)
    return offer.uid


@dataclass(frozen=True)
class Waiting:
    thread: threading.Thread
    offers: list[Offer | None]

    def offer(self) -> Offer:
        self.thread.join(30)
        return taken(self.offers[0])


def waiting(ask: Callable[[], Offer | None]) -> Waiting:
    offers: list[Offer | None] = []
    thread = threading.Thread(target=lambda: offers.append(ask()))
    thread.start()
    return Waiting(thread, offers)


def test_the_first_queue_is_preferred(inbox: RabbitInbox, rabbit_queues: RabbitQueues) -> None:
    rabbit_queues.put(QUEUE_CPU, "cpu-1", "cpu-2")
    rabbit_queues.put(QUEUE_GPU, "gpu-1", "gpu-2")

    order = [settle_next(inbox) for _ in range(4)]

    assert order == ["gpu-1", "gpu-2", "cpu-1", "cpu-2"]


def test_of_two_messages_that_come_at_once_one_goes_straight_back(
    inbox: RabbitInbox, rabbit_queues: RabbitQueues
) -> None:
    asking = waiting(lambda: inbox.next(SOON))
    eventually(lambda: rabbit_queues.subscribers(QUEUE_CPU) == 1)

    rabbit_queues.put(QUEUE_CPU, "cpu-task")
    rabbit_queues.put(QUEUE_GPU, "gpu-task")

    assert asking.offer().uid in {"cpu-task", "gpu-task"}
    assert eventually(lambda: rabbit_queues.ready(QUEUE_CPU) + rabbit_queues.ready(QUEUE_GPU) == 1)


def test_a_message_that_is_no_offer_is_dropped_and_holds_up_nothing(
    inbox: RabbitInbox, rabbit_queues: RabbitQueues
) -> None:
    rabbit_queues.declare(QUEUE_CPU)
    rabbit_queues.put_bytes(QUEUE_CPU, b"\x00 not JSON")
    rabbit_queues.put_bytes(QUEUE_CPU, b'{"no": "uid"}')
    rabbit_queues.put(QUEUE_CPU, "good-task")

    assert settle_next(inbox) == "good-task"
    assert eventually(lambda: rabbit_queues.ready(QUEUE_CPU) == 0)


def test_a_message_that_is_no_offer_and_comes_while_waiting_is_dropped_too(
    inbox: RabbitInbox, rabbit_queues: RabbitQueues
) -> None:
    asking = waiting(lambda: inbox.next(SOON))
    eventually(lambda: rabbit_queues.subscribers(QUEUE_CPU) == 1)

    rabbit_queues.put_bytes(QUEUE_CPU, b"not JSON")
    rabbit_queues.put(QUEUE_CPU, "good-task")

    assert asking.offer().uid == "good-task"


def test_a_queue_that_is_deleted_under_a_waiting_inbox_is_declared_again(
    inbox_behind_proxy: RabbitInbox, proxy: TcpProxy, rabbit_queues: RabbitQueues
) -> None:
    asking = waiting(lambda: inbox_behind_proxy.next(SOON))
    eventually(lambda: rabbit_queues.subscribers(QUEUE_CPU) == 1)

    rabbit_queues.delete(QUEUE_CPU)
    eventually(lambda: proxy.accepted == 2)
    rabbit_queues.put(QUEUE_CPU, "after")

    assert asking.offer().uid == "after"


def test_a_queue_that_is_deleted_under_a_busy_inbox_is_declared_again(
    inbox: RabbitInbox, rabbit_queues: RabbitQueues
) -> None:
    rabbit_queues.put(QUEUE_CPU, "before")
    assert settle_next(inbox) == "before"

    rabbit_queues.delete(QUEUE_GPU, QUEUE_CPU)

    assert inbox.next(BRIEFLY) is None
    rabbit_queues.put(QUEUE_CPU, "after")
    assert settle_next(inbox) == "after"


def test_an_offer_in_hand_goes_back_to_its_queue_at_close(inbox: RabbitInbox, rabbit_queues: RabbitQueues) -> None:
    rabbit_queues.put(QUEUE_CPU, "task")
    taken(inbox.next(SOON))

    inbox.close()

    assert eventually(lambda: rabbit_queues.ready(QUEUE_CPU) == 1)


def test_close_does_not_forget_what_was_settled_just_before(inbox: RabbitInbox, rabbit_queues: RabbitQueues) -> None:
    rabbit_queues.put(QUEUE_CPU, "settled", "left")
    assert settle_next(inbox) == "settled"

    inbox.close()

    assert eventually(lambda: rabbit_queues.take_all(QUEUE_CPU) == ["left"])


def test_an_offer_of_another_inbox_is_refused(inbox: RabbitInbox) -> None:
    class Foreign:
        uid = "task"

    with pytest.raises(TypeError, match="Foreign"):
        inbox.settle(Foreign())


def test_without_a_broker_next_returns_none_when_its_time_is_up() -> None:
    with closing(RabbitInbox("amqp://guest:guest@127.0.0.1:1/", [QUEUE_CPU])) as inbox:
        assert inbox.next(BRIEFLY) is None


def test_an_inbox_whose_connection_is_cut_while_it_waits_comes_back(
    inbox_behind_proxy: RabbitInbox, proxy: TcpProxy, rabbit_queues: RabbitQueues
) -> None:
    asking = waiting(lambda: inbox_behind_proxy.next(SOON))
    eventually(lambda: rabbit_queues.subscribers(QUEUE_CPU) == 1)

    proxy.cut()
    rabbit_queues.put(QUEUE_CPU, "after")

    assert asking.offer().uid == "after"


def test_an_answer_to_an_offer_of_a_lost_connection_is_dropped_and_the_task_offered_again(
    inbox_behind_proxy: RabbitInbox, proxy: TcpProxy, rabbit_queues: RabbitQueues
) -> None:
    rabbit_queues.put(QUEUE_CPU, "task")
    offer = taken(inbox_behind_proxy.next(SOON))
    proxy.cut()
    eventually(lambda: rabbit_queues.ready(QUEUE_CPU) == 1)

    inbox_behind_proxy.settle(offer)

    assert settle_next(inbox_behind_proxy) == "task"
    assert eventually(lambda: rabbit_queues.ready(QUEUE_CPU) == 0)


def test_a_connection_that_dies_in_silence_is_noticed_by_its_heartbeats(
    inbox_behind_proxy: RabbitInbox, proxy: TcpProxy, rabbit_queues: RabbitQueues
) -> None:
    rabbit_queues.put(QUEUE_CPU, "before")
    assert settle_next(inbox_behind_proxy) == "before"

    with proxy.without_answers():
        eventually(lambda: proxy.accepted > 1, within=30)

    rabbit_queues.put(QUEUE_CPU, "after")
    assert settle_next(inbox_behind_proxy) == "after"


def test_heartbeats_go_on_while_the_consumer_is_busy_with_an_offer(
    inbox_behind_proxy: RabbitInbox, proxy: TcpProxy, rabbit_queues: RabbitQueues
) -> None:
    rabbit_queues.put(QUEUE_CPU, "long-task")
    offer = taken(inbox_behind_proxy.next(SOON))
    said_so_far = proxy.client_sends

    eventually(lambda: proxy.client_sends >= said_so_far + 8, within=30)  # two a second: well past the second agreed on

    assert proxy.accepted == 1
    assert rabbit_queues.ready(QUEUE_CPU) == 0
    inbox_behind_proxy.settle(offer)
    assert inbox_behind_proxy.next(BRIEFLY) is None

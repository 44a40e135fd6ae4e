import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pika
import pytest

from contracts.errors import Unavailable
from contracts.queue import QUEUE_CPU, QUEUE_GPU
from contracts.tasks import TaskOffer
from private_api.services.publisher import Publisher
from private_api.storage.queue import RabbitPublisher
from tests.support.rabbitmq import RabbitQueues
from tests.support.task_rows import TaskRows, running
from tests.support.waiting import eventually

NEVER = timedelta(hours=1)
SOON = timedelta(milliseconds=50)


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[RabbitPublisher]:
    with closing(RabbitPublisher(rabbitmq_url)) as broker:
        yield broker


@pytest.fixture
def no_broker_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"amqp://guest:very-secret@127.0.0.1:{port}/%2F"


def test_a_message_carries_the_uid_and_is_persistent(
    broker: RabbitPublisher, task_rows: TaskRows, rabbitmq_url: str
) -> None:
    [uid] = task_rows.add(1)

    confirmed = broker.publish(task_rows.outbox.due())

    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_url))) as connection:
        _, properties, body = connection.channel().basic_get(QUEUE_CPU, auto_ack=True)
    assert [entry.uid for entry in confirmed] == [uid]
    assert TaskOffer.model_validate_json(body) == TaskOffer(uid=uid)
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value


def test_each_task_goes_to_its_own_queue(
    broker: RabbitPublisher, task_rows: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    cpu, gpu = task_rows.add(2, QUEUE_CPU), task_rows.add(1, QUEUE_GPU)

    broker.publish(task_rows.outbox.due())

    assert rabbit_queues.take_all(QUEUE_CPU) == cpu
    assert rabbit_queues.take_all(QUEUE_GPU) == gpu


def test_a_batch_is_confirmed_whole_and_in_order(
    broker: RabbitPublisher, task_rows: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    uids = task_rows.add(2000)

    confirmed = broker.publish(task_rows.outbox.due(limit=2000))

    assert sorted(entry.uid for entry in confirmed) == sorted(uids)
    assert rabbit_queues.take_all(QUEUE_CPU) == uids


def test_ready_messages_counts_what_waits_and_not_what_a_consumer_holds(
    broker: RabbitPublisher, rabbit_queues: RabbitQueues, rabbitmq_url: str
) -> None:
    rabbit_queues.put(QUEUE_CPU, "a", "b", "c")
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_url))) as connection:
        connection.channel().basic_get(QUEUE_CPU)

        assert eventually(lambda: broker.ready_messages(QUEUE_CPU) == 2)

    assert eventually(lambda: broker.ready_messages(QUEUE_CPU) == 3)


def test_a_deleted_queue_is_declared_again_and_its_entries_go_out_with_the_next_batch(
    broker: RabbitPublisher, task_rows: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    broker.keep_alive()
    rabbit_queues.delete(QUEUE_CPU)
    [uid] = task_rows.add(1)
    entries = task_rows.outbox.due()

    confirmed = [broker.publish(entries), broker.publish(entries)]

    assert confirmed == [[], entries]
    assert rabbit_queues.take_all(QUEUE_CPU) == [uid]


def test_a_queue_of_another_kind_is_named_in_the_error(rabbitmq_url: str) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_url))) as connection:
        connection.channel().queue_declare(QUEUE_CPU, durable=True)

    with closing(RabbitPublisher(rabbitmq_url)) as broker, pytest.raises(Unavailable, match=QUEUE_CPU):
        broker.keep_alive()


def test_an_absent_broker_is_unavailable_and_named_without_its_password(no_broker_url: str) -> None:
    with closing(RabbitPublisher(no_broker_url)) as broker, pytest.raises(Unavailable) as caught:
        broker.keep_alive()

    assert "127.0.0.1:" in caught.value.message
    assert "very-secret" not in caught.value.message


def test_a_wrong_password_is_unavailable_and_not_repeated(rabbitmq_url: str) -> None:
    url = rabbitmq_url.replace("guest:guest@", "guest:very-secret@")

    with closing(RabbitPublisher(url)) as broker, pytest.raises(Unavailable) as caught:
        broker.keep_alive()

    assert "Authentication" in caught.value.message
    assert "very-secret" not in caught.value.message


def test_a_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="port"):
        RabbitPublisher("amqp://host:no-port/")


def test_a_committed_task_is_published_when_the_publisher_is_told(
    broker: RabbitPublisher, task_rows: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    with running(Publisher(task_rows.outbox, broker, look_every=NEVER)) as publisher:
        eventually(lambda: publisher.state == "ok")
        [uid] = task_rows.add(1)

        publisher.notify()

        eventually(lambda: task_rows.marked() == 0)
    assert rabbit_queues.take_all(QUEUE_CPU) == [uid]


def test_a_task_whose_notice_was_lost_is_published_at_the_next_look(
    broker: RabbitPublisher, task_rows: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    with running(Publisher(task_rows.outbox, broker, look_every=SOON)) as publisher:
        eventually(lambda: publisher.state == "ok")

        uids = task_rows.add(3)

        eventually(lambda: task_rows.marked() == 0)
    assert rabbit_queues.take_all(QUEUE_CPU) == uids


def test_messages_that_the_broker_lost_are_published_again(
    broker: RabbitPublisher, task_rows: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    uids = task_rows.add(3)
    repair_every = timedelta(milliseconds=200)
    with running(Publisher(task_rows.outbox, broker, look_every=SOON, repair_every=repair_every)):
        eventually(lambda: rabbit_queues.ready(QUEUE_CPU) == 3)

        rabbit_queues.delete(QUEUE_CPU)

        eventually(lambda: rabbit_queues.ready(QUEUE_CPU) == 3)
    assert sorted(rabbit_queues.take_all(QUEUE_CPU)) == sorted(uids)


def test_without_a_broker_the_publisher_says_so_and_still_stops_at_once(
    no_broker_url: str, task_rows: TaskRows
) -> None:
    publisher = Publisher(task_rows.outbox, RabbitPublisher(no_broker_url))
    publisher.start()
    task_rows.add(1)

    eventually(lambda: "is away" in publisher.state)

    publisher.stop(timedelta(seconds=5))
    assert "stopped" in publisher.state
    assert task_rows.marked() == 1


def test_the_publisher_outlives_a_database_that_does_not_answer(
    broker: RabbitPublisher, empty_database: TaskRows, rabbit_queues: RabbitQueues
) -> None:
    outbox = empty_database.outbox
    with running(Publisher(outbox, broker, look_every=SOON, longest_pause=SOON)) as publisher:
        eventually(lambda: "no such table" in publisher.state)

        empty_database.create_tables()
        uids = empty_database.add(2)

        eventually(lambda: publisher.state == "ok" and empty_database.marked() == 0)
    assert rabbit_queues.take_all(QUEUE_CPU) == uids

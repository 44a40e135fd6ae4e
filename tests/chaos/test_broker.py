"""The broker, the network to it and its consumers die at the worst moments: no task is lost, duplicates are allowed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from contracts.queue import QUEUE_CPU
from job_consumer.inbox.rabbitmq import RabbitInbox
from private_api.services.publisher import Publisher
from private_api.storage.queue import RabbitPublisher
from tests.support.rabbitmq import RabbitNode, RabbitQueues
from tests.support.task_rows import TaskRows, running
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

SHORT_PAUSE = timedelta(milliseconds=100)
SOON = timedelta(seconds=30)

CONSUMER = """
import sys
from datetime import timedelta
from job_consumer.inbox.rabbitmq import RabbitInbox

offer = RabbitInbox(sys.argv[1], [sys.argv[2]]).next(timedelta(seconds=30))
print(offer.uid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def proxy(rabbit_node: RabbitNode) -> Iterator[TcpProxy]:
    with TcpProxy(("127.0.0.1", rabbit_node.port)) as proxy:
        yield proxy


@pytest.fixture
def node_with_old_queue(rabbit_node: RabbitNode) -> RabbitNode:
    """Running, with an empty queue that is no news to its disk.

    RabbitMQ 3.10 writes a new quorum queue's place in its directory half a second late; a power cut before that leaves a
    queue without a leader, for the operator to delete.
    """
    rabbit_node.start()
    with RabbitQueues(rabbit_node.url) as queues:
        queues.delete(QUEUE_CPU)
        queues.declare(QUEUE_CPU)
    rabbit_node.stop()
    rabbit_node.start()
    return rabbit_node


@pytest.fixture
def node(rabbit_node: RabbitNode, rabbitmq_url: str) -> RabbitNode:
    """Running, with no queue."""
    return rabbit_node


def publisher_at(url: str, rows: TaskRows) -> Publisher:
    return Publisher(rows.outbox, RabbitPublisher(url), look_every=SHORT_PAUSE, longest_pause=SHORT_PAUSE)


def work_off(inbox: RabbitInbox, rows: TaskRows, expected: list[str]) -> None:
    """Claim and settle until all the expected tasks came; any that comes again is settled once more."""
    left = set(expected)
    while left:
        offer = inbox.next(SOON)
        assert offer is not None, f"{len(left)} tasks never came"
        rows.claim(offer.uid)
        inbox.settle(offer)
        left.discard(offer.uid)


def test_tasks_before_and_during_a_restart_of_the_broker_all_arrive(node: RabbitNode, task_rows: TaskRows) -> None:
    with (
        closing(RabbitInbox(node.url, [QUEUE_CPU], longest_pause=SHORT_PAUSE)) as inbox,
        running(publisher_at(node.url, task_rows)) as publisher,
    ):
        before = task_rows.add(20)
        eventually(lambda: task_rows.marked() == 0)
        held = inbox.next(SOON)
        assert held is not None

        node.stop()
        during = task_rows.add(20)
        eventually(lambda: "away" in publisher.state)
        inbox.settle(held)
        assert inbox.next(SHORT_PAUSE) is None
        node.start()

        work_off(inbox, task_rows, before + during)
        assert eventually(lambda: publisher.state == "ok" and task_rows.marked() == 0)


def test_a_power_cut_of_the_broker_amid_publishing_loses_no_task(
    node_with_old_queue: RabbitNode, task_rows: TaskRows
) -> None:
    node = node_with_old_queue
    uids = task_rows.add(5000)
    with running(publisher_at(node.url, task_rows)):
        eventually(lambda: 0 < task_rows.marked() < 5000, every=0.001)

        node.kill()
        assert task_rows.marked() > 0
        node.start()

        eventually(lambda: task_rows.marked() == 0, within=60)
    with RabbitQueues(node.url) as queues:
        assert set(queues.take_all(QUEUE_CPU)) == set(uids)


def test_a_cut_between_a_message_and_its_confirm_publishes_it_again(
    node: RabbitNode, proxy: TcpProxy, task_rows: TaskRows
) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"
    with RabbitQueues(node.url) as queues, running(publisher_at(url, task_rows)) as publisher:
        eventually(lambda: publisher.state == "ok")
        with proxy.without_answers():
            [uid] = task_rows.add(1)
            eventually(lambda: queues.ready(QUEUE_CPU) == 1)
            proxy.cut()
            assert task_rows.marked() == 1

        eventually(lambda: task_rows.marked() == 0)
        assert queues.take_all(QUEUE_CPU) == [uid, uid]


def test_a_publisher_whose_network_goes_silent_says_so_and_comes_back(
    node: RabbitNode, proxy: TcpProxy, task_rows: TaskRows
) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F?heartbeat=1"
    with running(publisher_at(url, task_rows)) as publisher:
        eventually(lambda: publisher.state == "ok")
        with proxy.without_answers():
            eventually(lambda: "away" in publisher.state, within=30)
            uids = task_rows.add(3)

        eventually(lambda: publisher.state == "ok" and task_rows.marked() == 0, within=30)
    with RabbitQueues(node.url) as queues:
        assert set(queues.take_all(QUEUE_CPU)) == set(uids)


def test_an_idle_publisher_answers_heartbeats(node: RabbitNode, proxy: TcpProxy, task_rows: TaskRows) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F?heartbeat=1"
    with running(publisher_at(url, task_rows)) as publisher:
        eventually(lambda: publisher.state == "ok")
        said_so_far = proxy.client_sends

        eventually(lambda: proxy.client_sends >= said_so_far + 8, within=30)  # two a second

        assert publisher.state == "ok"
        assert proxy.accepted == 1


def test_an_offer_in_the_hand_of_a_killed_consumer_goes_to_another(node: RabbitNode) -> None:
    with RabbitQueues(node.url) as queues, closing(RabbitInbox(node.url, [QUEUE_CPU])) as other:
        queues.put(QUEUE_CPU, "task")
        command = [sys.executable, "-c", CONSUMER, node.url, QUEUE_CPU]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdout is not None
            assert consumer.stdout.readline() == "task\n"
            assert other.next(SHORT_PAUSE) is None

            os.kill(consumer.pid, signal.SIGKILL)

        offer = other.next(SOON)
        assert offer is not None
        assert offer.uid == "task"


def test_duplicates_of_one_message_only_cost_their_settling(node: RabbitNode) -> None:
    with RabbitQueues(node.url) as queues, closing(RabbitInbox(node.url, [QUEUE_CPU])) as inbox:
        queues.put(QUEUE_CPU, *["again"] * 5, "next")

        came = []
        for _ in range(6):
            offer = inbox.next(SOON)
            assert offer is not None
            inbox.settle(offer)
            came.append(offer.uid)

        assert came == ["again"] * 5 + ["next"]
        assert inbox.next(SHORT_PAUSE) is None

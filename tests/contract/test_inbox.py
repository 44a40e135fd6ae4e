"""What every inbox keeps: the same suite over the broker's and over the long poll's."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Protocol

import pytest

from contracts.queue import QUEUE_CPU
from contracts.tasks import TaskOffer
from job_consumer.inbox.base import Inbox
from job_consumer.inbox.polling import PollingInbox
from job_consumer.inbox.rabbitmq import RabbitInbox
from tests.support.rabbitmq import RabbitQueues

SOON = timedelta(seconds=30)
BRIEFLY = timedelta(milliseconds=300)


class Platform(Protocol):
    """Where the offers of an inbox come from."""

    def add(self, *uids: str) -> None:
        """Queue tasks."""

    def claim(self, uid: str) -> None:
        """Take a task off the platform's own list, before its offer is settled."""

    def inbox(self) -> Inbox:
        """One more consumer's inbox."""

    def close(self) -> None:
        """Close all the inboxes."""


class BrokerPlatform:
    def __init__(self, url: str, queues: RabbitQueues) -> None:
        self._url = url
        self._queues = queues
        self._inboxes: list[RabbitInbox] = []

    def add(self, *uids: str) -> None:
        self._queues.put(QUEUE_CPU, *uids)

    def claim(self, uid: str) -> None:
        """The broker forgets a message when it is settled."""

    def inbox(self) -> Inbox:
        self._inboxes.append(RabbitInbox(self._url, [QUEUE_CPU]))
        return self._inboxes[-1]

    def close(self) -> None:
        for inbox in self._inboxes:
            inbox.close()


class ListPlatform:
    """Answers the long poll from a list: a task stays on it until it is claimed, and waiting polls share it out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending: list[str] = []
        self._inboxes: list[PollingInbox] = []

    def add(self, *uids: str) -> None:
        with self._changed:
            self._pending.extend(uids)
            self._changed.notify_all()

    def claim(self, uid: str) -> None:
        with self._changed:
            self._pending.remove(uid)

    def next_task(self, wait: timedelta) -> TaskOffer | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending, wait.total_seconds())
            return TaskOffer(uid=self._pending[0]) if self._pending else None

    def inbox(self) -> Inbox:
        self._inboxes.append(PollingInbox(self))
        return self._inboxes[-1]

    def close(self) -> None:
        for inbox in self._inboxes:
            inbox.close()


@pytest.fixture(params=["rabbitmq", "polling"])
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    platform: Platform = ListPlatform()
    if request.param == "rabbitmq":
        url = request.getfixturevalue("rabbitmq_url")
        platform = BrokerPlatform(url, request.getfixturevalue("rabbit_queues"))
    yield platform
    platform.close()


def take(platform: Platform, inbox: Inbox) -> str:
    """One task, claimed and settled; its uid."""
    offer = inbox.next(SOON)
    assert offer is not None
    platform.claim(offer.uid)
    inbox.settle(offer)
    return offer.uid


def in_background(act: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(act()))
    thread.start()
    return thread, answers


def test_a_task_that_waits_already_is_offered(platform: Platform) -> None:
    platform.add("first-task")

    offer = platform.inbox().next(SOON)

    assert offer is not None
    assert offer.uid == "first-task"


def test_a_task_that_comes_while_one_waits_for_it_is_offered(platform: Platform) -> None:
    inbox = platform.inbox()
    waiting, answers = in_background(lambda: take(platform, inbox))

    platform.add("late-task")

    waiting.join(60)
    assert answers == ["late-task"]


def test_tasks_are_offered_in_the_order_they_came(platform: Platform) -> None:
    platform.add("one", "two", "three")
    inbox = platform.inbox()

    order = [take(platform, inbox) for _ in range(3)]

    assert order == ["one", "two", "three"]


def test_a_settled_offer_does_not_come_again(platform: Platform) -> None:
    platform.add("only-task")
    inbox = platform.inbox()

    take(platform, inbox)

    assert inbox.next(BRIEFLY) is None


def test_an_offer_that_was_given_back_comes_again_to_anyone(platform: Platform) -> None:
    platform.add("only-task")
    first, second = platform.inbox(), platform.inbox()
    offer = first.next(SOON)
    assert offer is not None

    first.give_back(offer)

    again = second.next(SOON)
    assert again is not None
    assert again.uid == "only-task"


def test_without_a_task_none_comes_after_the_time_asked_for(platform: Platform) -> None:
    inbox = platform.inbox()
    began = time.monotonic()

    offer = inbox.next(BRIEFLY)

    assert offer is None
    assert time.monotonic() - began >= BRIEFLY.total_seconds() * 0.9


def test_a_busy_inbox_holds_nothing_back_from_an_idle_one(platform: Platform) -> None:
    busy, idle = platform.inbox(), platform.inbox()
    waiting, answers = in_background(lambda: take(platform, busy))
    platform.add("long-task")
    waiting.join(60)
    assert answers == ["long-task"]

    platform.add("a", "b", "c")

    assert [take(platform, idle) for _ in range(3)] == ["a", "b", "c"]


def test_an_inbox_that_stopped_asking_holds_nothing_back_either(platform: Platform) -> None:
    gone, idle = platform.inbox(), platform.inbox()
    assert gone.next(BRIEFLY) is None

    platform.add("a", "b")

    assert [take(platform, idle) for _ in range(2)] == ["a", "b"]


def test_close_ends_a_wait(platform: Platform) -> None:
    inbox = platform.inbox()
    waiting, answers = in_background(lambda: inbox.next(timedelta(seconds=60)))

    inbox.close()

    waiting.join(60)
    assert answers == [None]


def test_an_inbox_that_was_closed_offers_nothing(platform: Platform) -> None:
    platform.add("task")
    inbox = platform.inbox()

    inbox.close()

    assert inbox.next(BRIEFLY) is None

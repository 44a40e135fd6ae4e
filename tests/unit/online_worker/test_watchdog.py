"""A call that never ends ends its process, and nothing else does."""

import os
from types import SimpleNamespace
from typing import cast

import pytest

from contracts.worker_protocol import Call
from online_worker.session import Session
from online_worker.watchdog import CALL_NEVER_ENDS, Watchdog
from online_worker.work import Work

LIMIT, SILENCE = 10.0, 2.0
SESSION = cast("Session", SimpleNamespace(silence_seconds=SILENCE))


class Ended(BaseException):
    """The process would have ended."""


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    def end(status: int) -> None:
        assert status == CALL_NEVER_ENDS
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    return Work()


def call(limit: float = LIMIT) -> Call:
    return Call(1, "model", 1, {}, None, [], limit)


def look_every_second(watchdog: Watchdog, begin: int, end: int) -> None:
    for second in range(begin, end):
        watchdog.look(float(second))


def test_a_call_ends_the_process_when_it_takes_longer_than_its_limit_and_the_silence(work: Work) -> None:
    watchdog = Watchdog(work)
    work.at_hand = SESSION, call()

    look_every_second(watchdog, 100, 113)
    with pytest.raises(Ended):
        watchdog.look(113.0)


def test_each_call_has_its_own_time(work: Work) -> None:
    watchdog = Watchdog(work)

    for begin in range(100, 200, 12):
        work.at_hand = SESSION, call()
        look_every_second(watchdog, begin, begin + 12)


def test_a_worker_without_a_call_is_let_alone(work: Work) -> None:
    look_every_second(Watchdog(work), 0, 1000)


def test_a_call_without_a_limit_is_let_alone(work: Work) -> None:
    work.at_hand = SESSION, call(limit=0.0)

    look_every_second(Watchdog(work), 0, 1000)


def test_the_time_in_which_the_whole_process_stood_still_does_not_count(work: Work) -> None:
    watchdog = Watchdog(work)
    work.at_hand = SESSION, call()

    look_every_second(watchdog, 100, 105)
    look_every_second(watchdog, 4000, 4007)
    with pytest.raises(Ended):
        look_every_second(watchdog, 4007, 4010)

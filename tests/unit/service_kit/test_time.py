import threading
import time
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from service_kit.backoff import Backoff
from service_kit.deadline import Deadline, wait_until


@given(st.integers(1, 1000), st.integers(1, 100_000), st.integers(1, 30))
def test_pauses_grow_from_the_first_to_the_most_and_are_cut_by_no_more_than_half(
    first: int, most: int, tries: int
) -> None:
    backoff = Backoff(timedelta(milliseconds=first), timedelta(milliseconds=most))

    pauses = [backoff.pause() for _ in range(tries)]

    for number, pause in enumerate(pauses):
        full = timedelta(milliseconds=first if number == 0 else min(first * 2**number, most))
        assert full / 2 <= pause <= full


def test_a_success_begins_the_pauses_anew() -> None:
    backoff = Backoff(timedelta(seconds=1), timedelta(seconds=60))
    for _ in range(5):
        backoff.pause()

    backoff.reset()

    assert backoff.pause() <= timedelta(seconds=1)


def test_a_deadline_has_less_and_less_left_and_never_less_than_nothing() -> None:
    deadline, past = Deadline(timedelta(hours=1)), Deadline(timedelta(0))

    first, second = deadline.remaining, deadline.remaining

    assert timedelta(minutes=59) < second <= first <= timedelta(hours=1)
    assert (past.remaining, past.expired, deadline.expired) == (timedelta(0), True, False)


def test_a_pause_ends_with_the_deadline() -> None:
    deadline = Deadline(timedelta(seconds=0.05))
    began = time.monotonic()

    deadline.pause(timedelta(hours=1))

    assert deadline.expired
    assert time.monotonic() - began < 60


def test_at_most_is_the_bound_or_what_is_left() -> None:
    assert Deadline(timedelta(hours=1)).at_most(timedelta(seconds=1)) == timedelta(seconds=1)
    assert Deadline(timedelta(0)).at_most(timedelta(seconds=1)) == timedelta(0)


def test_waiting_ends_with_the_condition_the_deadline_or_the_stop() -> None:
    answers = iter([False, False, True])
    stopped = threading.Event()
    stopped.set()
    every = timedelta(milliseconds=1)

    assert wait_until(lambda: next(answers), Deadline(timedelta(seconds=5)), every)
    assert not wait_until(lambda: False, Deadline(timedelta(milliseconds=10)), every)
    assert not wait_until(lambda: False, Deadline(timedelta(hours=1)), timedelta(hours=1), stopped)

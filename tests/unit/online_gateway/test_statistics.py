from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_gateway.dataplane.statistics import (
    BUCKETS,
    MOST_RETRY_SECONDS,
    Durations,
    EndpointRecord,
    Histogram,
    LinkRecord,
)


def test_what_was_never_called_has_no_mean() -> None:
    counted = EndpointRecord().statistics(0)

    assert (counted.handled, counted.handling_mean_seconds, counted.inference_mean_seconds) == (0, 0.0, 0.0)
    assert LinkRecord().statistics().handling_mean_seconds == 0.0
    assert Histogram().mean_seconds == 0.0


def test_means_and_histograms_are_of_the_same_calls() -> None:
    record = EndpointRecord()
    record.answered(0.2, 0.1)
    record.answered(0.4, 0.3)

    counted = record.statistics(7)

    assert (counted.handled, counted.queue_now, counted.queue_max) == (2, 7, 7)
    assert counted.handling_mean_seconds == pytest.approx(0.3)
    assert counted.inference_mean_seconds == pytest.approx(0.2)
    assert counted.handling.count == counted.inference.count == 2


def test_a_worker_has_means_of_its_own() -> None:
    record = LinkRecord()
    record.answered(0.2, 0.1)
    record.answered(0.4, 0.3)

    counted = record.statistics()

    assert counted.handled == 2
    assert counted.handling_mean_seconds == pytest.approx(0.3)
    assert counted.inference_mean_seconds == pytest.approx(0.2)


@given(st.lists(st.floats(0, 100)))
def test_every_duration_is_in_the_bucket_whose_bounds_enclose_it(durations: list[float]) -> None:
    counter = Durations()
    for seconds in durations:
        counter.add(seconds)

    bounds = (float("-inf"), *BUCKETS, float("inf"))
    expected = [sum(low < seconds <= high for seconds in durations) for low, high in pairwise(bounds)]

    histogram = counter.histogram()
    assert list(histogram.counts) == expected
    assert histogram.count == len(durations)
    assert histogram.total_seconds == pytest.approx(sum(durations))


def test_who_finds_the_queue_full_is_told_how_long_it_takes_to_empty() -> None:
    record = EndpointRecord()
    now = 0.0
    for _ in range(100):
        record.sample_rate(now, waiting=50)
        record.handled += 1
        now += 0.1

    assert record.retry_after(50) == pytest.approx(5, abs=1)
    assert record.retry_after(1) == 1
    assert record.retry_after(10**9) == MOST_RETRY_SECONDS


def test_times_in_which_nobody_waits_do_not_make_an_endpoint_look_slow() -> None:
    record = EndpointRecord()
    record.sample_rate(0.0, waiting=10)
    record.handled += 100
    record.sample_rate(1.0, waiting=10)
    for second in range(2, 1000):
        record.sample_rate(float(second), waiting=0)
    record.sample_rate(1000.0, waiting=10)

    assert record.retry_after(200) == 2


def test_who_comes_before_anything_is_known_is_told_to_come_again_soon() -> None:
    assert EndpointRecord().retry_after(1000) == 1

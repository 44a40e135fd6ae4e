"""Sizes and durations, as people write and read them."""

from datetime import timedelta

import pytest

from inference_client.cli.quantities import parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("512M", 512 * 2**20), ("4G", 4 * 2**30), ("1.5g", 3 * 2**29), ("2 KiB", 2048), ("1TB", 2**40)],
)
def test_a_size_is_a_number_with_a_unit_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-4G", "4X", "4 G B", "1e9", "٤G x"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="512M or 4G"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600), ("250ms", 0.25), ("1m500ms", 60.5)],
)
def test_a_duration_is_a_number_with_a_unit_or_several(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "-3s", "3x", "3 hours", "1h 30", "367d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer than a year"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (2**20, "1.0 MiB"), (5 * 2**29, "2.5 GiB"), (2**50, "1024.0 TiB")]
)
def test_a_size_is_shown_in_the_unit_that_fits(size: int, shown: str) -> None:
    assert show_size(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_a_duration_is_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert show_duration(timedelta(seconds=seconds)) == shown

"""Sizes such as ``512M`` and durations such as ``1h30m``: read from people, and shown to them."""

import re
from datetime import timedelta

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kmgt]?)(i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

_DURATION = re.compile(r"(\d+(\.\d+)?(ms|[smhd]))+", re.IGNORECASE)
_PART = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|[smhd])", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = timedelta(days=366)


def parse_size(text: str) -> int:
    """Bytes: a number, or one with K, M, G or T, each 1024 of the one before.

    Raises
    ------
    ValueError
        It is something else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write for example 512M or 4G.")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def parse_duration(text: str) -> timedelta:
    """A number of seconds, or numbers with ms, s, m, h or d, such as 90s, 2h or 1h30m; up to a year.

    Raises
    ------
    ValueError
        It is something else, or longer.
    """
    stripped = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        stripped += "s"
    if _DURATION.fullmatch(stripped) is None:
        raise ValueError(f"{text!r} is no duration; write for example 90s, 2h or 1h30m.")
    seconds = sum(float(part["number"]) * _SECONDS[part["unit"].lower()] for part in _PART.finditer(stripped))
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is longer than a year.")
    return timedelta(seconds=seconds)


def show_size(size: int) -> str:
    """Bytes as people read them."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def show_duration(duration: timedelta) -> str:
    """A duration as people read it: two units at most."""
    seconds = duration.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"

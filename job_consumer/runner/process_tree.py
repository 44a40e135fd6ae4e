"""What a program and its descendants use, read from /proc without a look at the host's other processes."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from service_kit.deadline import Deadline

_KIB = 1024
_EXACT_SHARE = 10
"""The exact sum of memory is taken at most one part in so many of the time."""

_LOOK_AGAIN = timedelta(milliseconds=100)
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Usage:
    """The tree at one moment; memory counts pages once per process that maps them."""

    pids: tuple[int, ...]
    threads: int
    resident_bytes: int


def usage_of(root: int) -> Usage:
    """What the process and its descendants use now; those that end meanwhile are left out."""
    pids: list[int] = []
    threads = resident = 0
    for pid in _tree(root):
        with suppress(*_GONE):
            fields = _fields(Path(f"/proc/{pid}/status"))
            pids.append(pid)
            threads += int(fields.get("Threads", "1"))
            resident += _kib(fields, "VmRSS") + _kib(fields, "VmSwap")
    return Usage(tuple(pids), threads, resident * _KIB)


def proportional_bytes(pids: tuple[int, ...]) -> int:
    """The memory of these processes with each shared page counted once; walks their page tables, so it is not cheap."""
    total = 0
    for pid in pids:
        with suppress(*_GONE):
            try:
                fields = _fields(Path(f"/proc/{pid}/smaps_rollup"))
                total += _kib(fields, "Pss") + _kib(fields, "SwapPss")
            except PermissionError:
                fields = _fields(Path(f"/proc/{pid}/status"))
                total += _kib(fields, "VmRSS") + _kib(fields, "VmSwap")
    return total * _KIB


class MemoryGuard:
    """Says when a tree uses more than its limit.

    The cheap sum counts a page that forked workers share once for each of them. So it only raises the suspicion, and
    the exact sum decides; that one is taken again after a pause in proportion to what it cost.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._next_exact = 0.0

    def exceeded(self, usage: Usage) -> bool:
        """Whether the limit is exceeded, as far as the pause between exact sums allows to know."""
        began = time.monotonic()
        if usage.resident_bytes <= self._limit or began < self._next_exact:
            return False
        exact = proportional_bytes(usage.pids)
        now = time.monotonic()
        self._next_exact = now + _EXACT_SHARE * (now - began)
        return exact > self._limit


def _tree(root: int) -> Iterator[int]:
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():  # a kernel without CONFIG_PROC_CHILDREN
        with suppress(psutil.NoSuchProcess):
            yield root
            yield from (child.pid for child in psutil.Process(root).children(recursive=True))
        return
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in seen:
            seen.add(pid)
            yield pid
            waiting.extend(_children(pid))


def _children(pid: int) -> Iterator[int]:
    with suppress(*_GONE):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):
                yield from map(int, (thread / "children").read_text(encoding="ascii").split())


def _fields(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _kib(fields: dict[str, str], name: str) -> int:
    return int(fields.get(name, "0 kB").partition(" ")[0])


def kill_marked(variable: str, value: str, within: timedelta) -> bool:
    """Kill every process that was started with this environment variable, until none is left; whether none is.

    The value must be one that no other program can have. This finds what left its parent and its process group; a
    program that started itself anew without its environment escapes.
    """
    deadline = Deadline(within)
    while marked := [process for process in psutil.process_iter() if _is_marked(process, variable, value)]:
        for process in marked:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if deadline.expired:
            return False
        psutil.wait_procs(marked, timeout=deadline.at_most(_LOOK_AGAIN).total_seconds())
    return True


def _is_marked(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return bool(process.environ().get(variable) == value)
    except (psutil.Error, OSError):  # not ours to read, or gone
        return False

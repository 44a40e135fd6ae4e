"""Who has how much of this machine's memory."""

import socket
from collections import Counter
from collections.abc import Iterable

import psutil

from online_gateway.information import MemoryStatus


def memory_status(workers: Iterable[tuple[str, str, int]]) -> MemoryStatus:
    """The status, given pool, host and resident bytes of each worker. Reads files of the kernel."""
    machine = psutil.virtual_memory()
    gateway = psutil.Process().memory_info().rss
    endpoints: Counter[str] = Counter()
    here = 0
    for pool, host, size in workers:
        endpoints[pool] += size
        here += size if host == socket.gethostname() else 0
    used = machine.total - machine.available
    return MemoryStatus(
        total=machine.total,
        available=machine.available,
        system=max(0, used - gateway - here),
        gateway=gateway,
        endpoints=dict(sorted(endpoints.items())),
    )

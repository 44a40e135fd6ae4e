"""The process's own memory."""

import ctypes
import gc

import psutil

_process = psutil.Process()
_libc = ctypes.CDLL(None)


def resident_bytes() -> int:
    """What of the process is in memory now."""
    return int(_process.memory_info().rss)


def let_go() -> None:
    """Give back to the system what a closed model occupied.

    Models hold themselves in cycles (a class and its methods, an exception and its frames), which wait for the
    collector. And glibc keeps freed blocks below the highest one in use; once a block of some megabytes was freed it
    takes all of that size from there (mallopt(3), M_MMAP_THRESHOLD). malloc_trim(3) returns their pages; other
    libraries of C do not have it.
    """
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)

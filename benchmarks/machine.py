"""Names the machine that the numbers come from, without naming whose it is."""

import os
import platform
from pathlib import Path

import docker
import psutil
from docker.errors import DockerException


def description() -> list[tuple[str, str]]:
    """What a reader must know to compare with another machine."""
    return [
        ("Processor", _processor()),
        ("Cores", str(os.cpu_count())),
        ("Memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("Kernel", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("Docker Engine", _engine()),
    ]


def load() -> float:
    """The load average of the last minute; the benchmarks themselves are part of it."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _engine() -> str:
    try:
        engine = docker.from_env()
        try:
            version: str = engine.version()["Version"]
        finally:
            engine.close()
    except DockerException:
        return "none"
    return version

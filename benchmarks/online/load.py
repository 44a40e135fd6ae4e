"""The load: wrk, which posts one body on some connections as fast as answers come."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.online.systems import Target

_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]
"""
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class WrongAnswers(Exception):
    """Some answers were errors: what was measured is worth nothing."""


@dataclass(frozen=True)
class Load:
    """What came of one round."""

    per_second: float
    median_seconds: float


def post(target: Target, connections: int, seconds: int, folder: Path) -> Load:
    """Post for so long.

    Raises
    ------
    WrongAnswers
        See the class.
    """
    script = folder / "post.lua"
    script.write_text(_SCRIPT.format(body=target.body))
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), target.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    middle = re.search(r"50%\s+([\d.]+)(us|ms|s)\b", said)
    if rate is None or middle is None or "Non-2xx" in said or "Socket errors" in said:
        raise WrongAnswers(f"{target.url}: {said}")
    return Load(float(rate[1]), float(middle[1]) * _UNITS[middle[2]])

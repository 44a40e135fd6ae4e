"""Runs the programs that make a file tree: each has a deadline, and none outlives this process."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

_KILL_AFTER_SECONDS = 10.0
_LAST_LINES = 5


def run(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and output; at the deadline, or when this process is interrupted, all that the command started ends.

    ``environment`` None is this process's own.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except BaseException:
            _end(process)
            raise
    return process.returncode, said


def end_of(said: str) -> str:
    """The lines of an output that name its failure."""
    return "\n".join(said.splitlines()[-_LAST_LINES:])


def _end(process: "subprocess.Popen[str]") -> None:
    """TERM first: debootstrap then unmounts what it mounted in the tree."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=_KILL_AFTER_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)

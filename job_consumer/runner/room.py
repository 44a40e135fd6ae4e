"""Whether a runner's scratch folder can take another task."""

import shutil
from pathlib import Path

from job_consumer.runner.base import RunnerError

_LEAST_FREE_BYTES = 64 * 2**20


def check_room(scratch: Path) -> None:
    """Pass when the folder's disk has room.

    Raises
    ------
    RunnerError
        It has not, or the folder cannot be used.
    """
    try:
        free = shutil.disk_usage(scratch).free
    except OSError as error:
        raise RunnerError(f"The scratch folder {scratch} cannot be used: {error}.") from error
    if free < _LEAST_FREE_BYTES:
        raise RunnerError(f"The scratch folder {scratch} has {free} bytes left; make room.")

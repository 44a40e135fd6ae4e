"""Steps on the disk, counted; at one of them the process is killed, or the system refuses.

``python -m tests.support.disk_steps FOLDER`` has a child killed before each step of an installation in turn, every one
in a folder of its own below FOLDER, and notes there what the child had finished.
"""

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from online_gateway.repository.repository import Accepted, Repository

STEPS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")
MOST_BYTES = 2**20


@contextmanager
def before_each_step(act: Callable[[str, int], None], steps: tuple[str, ...] = STEPS) -> Iterator[None]:
    """``act`` is given the step's name and its number, from 1 on."""
    count = 0

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            act(f"{name} {arguments[0]}", count)
            return real(*arguments, **named)

        return step

    with patch.multiple(os, **{name: watched(name) for name in steps}):
        yield


class FullDisk:
    """The disk is full at this step, and from then on if it is so ``for_good``."""

    def __init__(self, at: int, *, for_good: bool = False) -> None:
        self._at = at
        self._for_good = for_good
        self.was_met = False

    def __call__(self, _: str, number: int) -> None:
        if number == self._at or (self._for_good and number > self._at):
            self.was_met = True
            raise OSError(errno.ENOSPC, "No space left on device")


async def install(repository: Repository, content: bytes, label: str) -> int:
    """Stage, reserve and accept, as a swap does; the generation's number."""
    async with repository.staging() as staged:
        await staged.write(content)
        reservation = await repository.reserve("vectors", staged)
        record = Accepted(reservation.number, "digest", label, "python", staged.size, staged.sha256)
        try:
            await repository.accept(reservation, record, {"LABEL": label})
        except BaseException:
            await repository.discard(reservation)
            raise
    await repository.prune("vectors")
    return reservation.number


def _child(folder: Path, at: int) -> None:
    def act(_: str, number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def play() -> None:
        repository = Repository(folder / "data", most_bytes=MOST_BYTES)
        with before_each_step(act):
            number = await install(repository, b"third" * 1000, "third")
        (folder / "finished").write_text(str(number))

    asyncio.run(play())


def main(base: Path) -> None:
    with TemporaryDirectory() as before:
        repository = Repository(Path(before), most_bytes=MOST_BYTES)
        for label in ("first", "second"):
            asyncio.run(install(repository, label.encode() * 1000, label))
        _die_at_each_step(Path(before), base)


def _die_at_each_step(before: Path, base: Path) -> None:
    for at in range(1, 1000):
        folder = base / f"{at:03}"
        shutil.copytree(before, folder / "data")
        child = os.fork()
        if child == 0:
            _child(folder, at)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("the installation does not end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

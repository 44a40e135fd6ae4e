"""Where a backup goes: a file that appears whole or not at all, or a stream that another program takes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from private_api.storage.files import flush_folder


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends well, then on disk; until then it is called ``NAME.part``.

    Only its owner may read it: who holds a task's uid may have its result.
    """
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with create_private(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    flush_folder(path.absolute().parent)


def create_private(path: Path) -> BinaryIO:
    """A new file that only its owner may read; FileExistsError where there is one of that name."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

"""Second names for stored files, so that a backup reads them in peace while the platform deletes what it must."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from private_api.storage.files import BlobKind

_NO_LINKS_HERE = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class Links:
    """Hard links, below one folder, to the stored files of another on the same file system.

    Where the file system has no hard links the files themselves are read; one that is deleted before its turn is then
    missing in the backup.
    """

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self._data_dir = data_dir
        self._folder = folder
        for kind in BlobKind:
            (folder / kind).mkdir()

    def take(self) -> None:
        """Link every stored file that has no link yet."""
        for kind in BlobKind:
            with os.scandir(self._data_dir / kind) as entries:
                for entry in entries:
                    self._link(f"{kind}/{entry.name}")

    def hold(self, name: str) -> bool:
        """Whether the file can be read from now on; not when it is gone already."""
        return (self._folder / name).exists() or self._link(name)

    def _link(self, name: str) -> bool:
        try:
            os.link(self._data_dir / name, self._folder / name, follow_symlinks=False)
        except FileExistsError:
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS_HERE:
                raise
            return (self._data_dir / name).exists()
        return True

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """The file and its size; nothing, with size 0, where it is gone. It leaves no trace in the page cache."""
        linked = self._folder / name
        try:
            source = (linked if linked.exists() else self._data_dir / name).open("rb", buffering=0)
        except FileNotFoundError:
            yield io.BytesIO(), 0
            return
        with source:
            yield source, os.fstat(source.fileno()).st_size
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

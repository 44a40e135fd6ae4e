"""Restoring a backup, so that a failure at any moment leaves the target as it was.

1. The whole backup is unpacked and checked in a folder of its own beside the stored files.
2. In one transaction all tables are made anew at the backup's schema revision, filled and upgraded, live tasks are made
   to wait; then the stored files are moved to their places, and the transaction is committed.
3. What the platform held before, and no row names now, is removed.

Killed between the moves and the commit, it leaves files that no row names: the next start of private_api removes them.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from contracts.errors import Conflict, PlatformError, Unavailable
from private_api.admin import archive_format as form
from private_api.admin.reading import Contents, files_in, read_backup, staged
from private_api.admin.target import Target
from private_api.migrations import HEAD
from private_api.services.resumption import resume
from private_api.storage import loading, references
from private_api.storage.database import Database, Transaction
from private_api.storage.dump import Values
from private_api.storage.files import BlobKind, BlobStore, FolderLock, flush_folder
from private_api.storage.migrate import is_known, upgrade
from private_api.storage.workspace import RESTORE, Workspace
from service_kit.version import VERSION

_NAMES_AT_ONCE = 200


@dataclass(frozen=True)
class RestoreReport:
    """What was restored."""

    contents: Contents
    waiting: int
    """Tasks that wait for a consumer."""


def restore(target: Target, source: BinaryIO, *, replace: bool) -> RestoreReport:
    """Bring the target to what the backup holds; private_api must be stopped.

    Raises
    ------
    Conflict
        private_api runs, the target is not empty and must not be replaced, or the backup is newer than this version.
    InvalidRequest
        The backup is damaged.
    Unavailable, OSError
        The database or the disk fails. Unless the message says otherwise, the target is as it was.
    """
    target.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(_Lock(target.data_dir)), closing(Database(target.database_url.get_secret_value())) as database:
        files = BlobStore(target.data_dir, min_free_bytes=0)
        _check_may_fill(database, target.data_dir, replace=replace)

        def check(manifest: form.Manifest) -> None:
            _check_version(manifest)
            files.check_space(manifest.file_bytes)

        with closing(Workspace(target.data_dir, RESTORE)) as work:
            contents = read_backup(source, work.folder, keep=True, on_manifest=check)
            waiting = _put_in_place(database, contents, work.folder, target.data_dir, replace=replace)
        if replace:
            _remove_unnamed(database, files, target.data_dir)
        return RestoreReport(contents, waiting)


class _Lock:
    """private_api's own lock on its folder."""

    def __init__(self, data_dir: Path) -> None:
        try:
            self._lock = FolderLock(data_dir)
        except Conflict as error:
            raise Conflict(f"private_api runs on {data_dir}, or another restore does; stop it first.") from error

    def close(self) -> None:
        self._lock.release()


def _check_may_fill(database: Database, data_dir: Path, *, replace: bool) -> None:
    with database.alone() as tx:
        is_empty = loading.holds_nothing(tx)
    if replace:
        return
    if not is_empty:
        raise Conflict("The database holds models or tasks; with --replace they are given up for those of the backup.")
    if any(True for kind in BlobKind for _ in (data_dir / kind).iterdir()):
        raise Conflict(
            f"{data_dir} holds stored files, and the database has no rows for them; check that both belong together, "
            "and with --replace the files are given up."
        )


def _check_version(manifest: form.Manifest) -> None:
    if not is_known(manifest.revision):
        raise Conflict(
            f"Version {manifest.software} made the backup, with schema revision {manifest.revision}; this is version "
            f"{VERSION}, and its newest is {HEAD}. Install version {manifest.software}, or a newer one, to restore it."
        )


def _put_in_place(database: Database, contents: Contents, work: Path, data_dir: Path, *, replace: bool) -> int:
    """Rows and files, all or nothing; the number of tasks that wait."""
    may_be_committed = False
    try:
        with database.alone() as tx:
            waiting = _fill(tx, contents.manifest, work)
            _move(contents, work, data_dir)
            may_be_committed = True
    except BaseException as error:
        if may_be_committed:
            said = error.message if isinstance(error, PlatformError) else type(error).__name__
            raise Unavailable(
                f"The last step failed ({said}), and the database may have taken it or not: "
                "run the restore again, with --replace."
            ) from error
        if not replace:
            _take_back(contents, work, data_dir)
        raise
    return waiting


def _fill(tx: Transaction, manifest: form.Manifest, work: Path) -> int:
    loading.holds_nothing(tx)  # tables of something else are not ours to drop
    loading.drop_everything(tx)
    upgrade(tx, manifest.revision)
    loading.check_tables(tx, manifest.tables)
    for name in manifest.tables:
        loading.load_rows(tx, name, _rows_in(work / f"{name}.jsonl"))
    upgrade(tx)
    return resume(tx)


def _rows_in(path: Path) -> Iterator[Values]:
    with path.open("rb") as lines:
        for line in lines:
            yield form.parse_row(line)


def _move(contents: Contents, work: Path, data_dir: Path) -> None:
    for name in _present(contents, work):
        staged(work, name).replace(data_dir / name)
    for kind in BlobKind:
        flush_folder(data_dir / kind)


def _take_back(contents: Contents, work: Path, data_dir: Path) -> None:
    """Undo moves into folders that were empty before."""
    for name in _present(contents, work):
        (data_dir / name).unlink(missing_ok=True)


def _present(contents: Contents, work: Path) -> Iterator[str]:
    return (file.name for file in files_in(work) if not file.is_missing and file.name not in contents.damaged)


def _remove_unnamed(database: Database, files: BlobStore, data_dir: Path) -> None:
    for kind in BlobKind:
        with os.scandir(data_dir / kind) as entries:
            names = [f"{kind}/{entry.name}" for entry in entries]
        for start in range(0, len(names), _NAMES_AT_ONCE):
            some = names[start : start + _NAMES_AT_ONCE]
            named = _named(database, some)
            files.remove_now(name for name in some if name not in named)


def _named(database: Database, names: list[str]) -> set[str]:
    return database.read_sync(lambda tx: references.named_files(tx, names))

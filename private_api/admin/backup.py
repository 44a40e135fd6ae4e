"""Making a backup while the platform runs.

1. Every stored file gets a second name, a hard link, so that no deletion reaches its bytes.
2. All rows are read in one snapshot of the database and written to a file beside the links; files that appeared since
   are linked too. The snapshot ends here: how slowly the backup flows no longer matters to the database.
3. Rows and files are written out as one tar.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from contracts.errors import Conflict, InvalidRequest, Unavailable
from private_api.admin import archive_format as form
from private_api.admin.links import Links
from private_api.admin.target import Target
from private_api.migrations import HEAD
from private_api.storage import dump, workspace
from private_api.storage.database import Database, Transaction
from private_api.storage.files import BlobKind
from private_api.storage.migrate import revision_of
from private_api.storage.platform import known_installation
from service_kit.version import VERSION

_SHOWN = 10


@dataclass
class Names:
    """How many files something befell, and the first of them by name."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(name)

    def __str__(self) -> str:
        more = f" and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        return ", ".join(self.first) + more


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds, and what it could not take along."""

    manifest: form.Manifest
    missing: Names
    damaged: Names


def back_up(target: Target, destination: BinaryIO) -> BackupReport:
    """Write a backup of the platform to the stream.

    Raises
    ------
    Conflict
        Another backup is under way, or the database is not at this version's schema.
    InvalidRequest
        There is no platform at the target.
    Unavailable, OSError
        The database, the folder or the destination fails.
    """
    with opened(target) as database, closing(workspace.Workspace(target.data_dir, workspace.BACKUP)) as work:
        links = Links(target.data_dir, work.folder)
        links.take()
        spool = _Spool(work.folder, links)
        with database.snapshot() as tx:
            installation = _check(tx)
            links.take()
            for name in dump.table_names():
                spool.add_table(tx, name)
        manifest = spool.manifest(installation)
        damaged = _write(destination, manifest, spool, links)
        return BackupReport(manifest, spool.missing, damaged)


@contextmanager
def opened(target: Target) -> Iterator[Database]:
    """The target's database, where there is a platform.

    Raises
    ------
    InvalidRequest
        There is none.
    """
    if not (target.data_dir / BlobKind.INPUT).is_dir():
        raise InvalidRequest(f"{target.data_dir} is not the folder of a platform that was ever started.")
    with closing(Database(target.database_url.get_secret_value())) as database:
        if database.file is not None and not database.file.is_file():
            raise InvalidRequest(f"There is no database {database.file}.")
        yield database


def _check(tx: Transaction) -> str:
    """Refuse what this version could not read right; who the installation is."""
    revision = revision_of(tx)
    installation = None if revision is None else known_installation(tx)
    if installation is None:
        raise InvalidRequest("The database is empty: no platform was ever started on it.")
    if revision != HEAD:
        raise Conflict(
            f"The database is at schema revision {revision}, this version, {VERSION}, is at {HEAD}: make the backup "
            "with the version that runs, or start this one once."
        )
    return installation


class _Spool:
    """Rows on their way from the snapshot to the backup, in files, since a tar wants sizes first."""

    def __init__(self, folder: Path, links: Links) -> None:
        self.folder = folder
        self._links = links
        self._tables: dict[str, form.Rows] = {}
        self._files = _LinesWriter(folder / form.FILES)
        self._file_bytes = 0
        self.missing = Names()

    def add_table(self, tx: Transaction, name: str) -> None:
        """Keep the rows of a table, and the list of files that they name."""
        lines = _LinesWriter(self.folder / f"{name}.jsonl")
        for row in dump.rows_of(tx, name):
            lines.add(row)
            for blob in dump.files_of(name, row):
                is_missing = not self._links.hold(blob.name)
                self._files.add(form.StoredFile.from_blob(blob, is_missing=is_missing).model_dump())
                if is_missing:
                    self.missing.add(blob.name)
                else:
                    self._file_bytes += blob.size
        self._tables[name] = lines.close()

    def manifest(self, installation: str) -> form.Manifest:
        """What was kept."""
        return form.Manifest(
            software=VERSION,
            revision=HEAD,
            installation=installation,
            created_at=datetime.now(UTC),
            tables=self._tables,
            files=self._files.close(),
            missing_files=self.missing.count,
            file_bytes=self._file_bytes,
        )


class _LinesWriter:
    """A file of lines, counted and hashed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._rows = 0

    def add(self, values: object) -> None:
        line = form.encode_line(values)
        self._hash.update(line)
        self._file.write(line)
        self._rows += 1

    def close(self) -> form.Rows:
        self._file.close()
        return form.Rows(rows=self._rows, sha256=self._hash.hexdigest())


def _write(destination: BinaryIO, manifest: form.Manifest, spool: _Spool, links: Links) -> Names:
    tar = form.TarWriter(destination, int(manifest.created_at.timestamp()))
    first = manifest.model_dump_json(indent=2).encode()
    tar.add(form.MANIFEST, len(first), io.BytesIO(first))
    for name, rows in manifest.tables.items():
        _add_spooled(tar, form.table_member(name), spool.folder / f"{name}.jsonl", rows)
    _add_spooled(tar, form.FILES, spool.folder / form.FILES, manifest.files)
    damaged, shown = [], Names()
    with (spool.folder / form.FILES).open("rb") as lines:
        for line in lines:
            stored = form.parse_file_line(line)
            if not stored.is_missing and not _add_file(tar, stored, links):
                damaged.append(stored.name)
                shown.add(stored.name)
    last = form.End(manifest_sha256=hashlib.sha256(first).hexdigest(), damaged=damaged)
    text = json.dumps(last.model_dump()).encode()
    tar.add(form.END, len(text), io.BytesIO(text))
    tar.end()
    return shown


def _add_spooled(tar: form.TarWriter, member: str, path: Path, rows: form.Rows) -> None:
    with path.open("rb") as source:
        written = tar.add(member, path.stat().st_size, source)
    if written != rows.sha256:
        raise Unavailable(f"{path} cannot be read back; see to the disk.")


def _add_file(tar: form.TarWriter, stored: form.StoredFile, links: Links) -> bool:
    """Add a stored file; whether its bytes are those that its row says."""
    with links.open(stored.name) as (source, size):
        return tar.add(form.file_member(stored.name), size, source) == stored.sha256

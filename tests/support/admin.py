"""Backups in tests: the command as a process, one platform's database and folder, and backups that no platform would make."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from contracts.errors import PlatformError
from private_api.admin import archive_format as form
from private_api.admin.backup import BackupReport, back_up
from private_api.admin.destination import new_file
from private_api.admin.restore import RestoreReport, restore
from private_api.admin.target import Target
from private_api.config import PrivateApiSettings
from private_api.migrations import HEAD
from private_api.storage import dump
from private_api.storage.database import Database
from private_api.storage.dump import Values
from private_api.storage.migrate import revision_of
from service_kit.version import VERSION
from tests.support.private_api import settings

COMMAND = (sys.executable, "-m", "private_api.admin")
COMMAND_SECONDS = 60

MODEL = {
    "id": 1,
    "uid": "model",
    "human_readable_id": "m",
    "description": None,
    "container_tag": "image:1",
    "use_gpu": False,
    "input_mountpoint": "/input",
    "output_mountpoint": "/output",
    "model_mountpoint": "/model",
    "limits": {},
    "content_blob": None,
    "content_sha256": None,
    "content_size": None,
    "created_at": 1.5,
    "deleted_at": None,
}
PLATFORM = {"id": 1, "installation": "0123456789abcdef", "created_at": 1.0, "software": VERSION}


@dataclass(frozen=True)
class Place:
    """Where one platform keeps its things."""

    database_url: str
    data_dir: Path

    @property
    def target(self) -> Target:
        return Target(SecretStr(self.database_url), self.data_dir)

    @property
    def settings(self) -> PrivateApiSettings:
        return settings(self.database_url, self.data_dir)

    @property
    def environment(self) -> dict[str, str]:
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**base, "DATABASE_URL": self.database_url, "DATA_DIR": str(self.data_dir)}

    def back_up(self, file: Path) -> BackupReport:
        with new_file(file) as destination:
            return back_up(self.target, destination)

    def restore(self, file: Path, *, replace: bool = False) -> RestoreReport:
        with file.open("rb") as source:
            return restore(self.target, source, replace=replace)

    def refusal(self, file: Path, *, replace: bool = False) -> str:
        """What the restore says that must not succeed."""
        with pytest.raises(PlatformError) as refused:
            self.restore(file, replace=replace)
        return refused.value.message

    def command(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
            **options,
        )

    def process(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*COMMAND, *arguments], env=self.environment, **options)

    def rows(self) -> dict[str, list[Values]]:
        """Every row of every table; nothing where there are no tables."""
        with closing(Database(self.database_url)) as database, database.snapshot() as tx:
            if revision_of(tx) is None:
                return {}
            return {name: list(dump.rows_of(tx, name)) for name in dump.table_names()}

    def files(self) -> dict[str, bytes]:
        """Every stored file, and whatever else backups and restores may have left."""
        folders = [self.data_dir / name for name in ("inputs", "outputs", "models", "tmp", "backup", "restore")]
        return {
            str(path.relative_to(self.data_dir)): path.read_bytes()
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "lock"
        }


def manifest_of(tables: Mapping[str, bytes], files: bytes, **changes: Any) -> dict[str, Any]:
    """What a backup of these members would say of itself, as JSON takes it."""
    lines = [form.parse_file_line(line) for line in files.splitlines()]
    return {
        "format": 1,
        "software": VERSION,
        "revision": HEAD,
        "installation": "0123456789abcdef",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        "tables": {name: _rows_entry(content) for name, content in tables.items()},
        "files": _rows_entry(files),
        "missing_files": sum(line.is_missing for line in lines),
        "file_bytes": 0,
        **changes,
    }


def _rows_entry(content: bytes) -> dict[str, Any]:
    return {"rows": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}


def write_backup(
    path: Path, tables: Mapping[str, bytes], files: bytes = b"", blobs: Mapping[str, bytes] = {}, **changes: Any
) -> None:
    """A backup of these members, whole in itself."""
    first = form.encode_line(manifest_of(tables, files, **changes))
    end = form.encode_line({"manifest_sha256": hashlib.sha256(first).hexdigest(), "damaged": []})
    members = {
        form.MANIFEST: first,
        **{form.table_member(name): content for name, content in tables.items()},
        form.FILES: files,
        **{form.file_member(name): content for name, content in blobs.items()},
        form.END: end,
    }
    with path.open("wb") as file:
        tar = form.TarWriter(file, 0)
        for name, content in members.items():
            tar.add(name, len(content), io.BytesIO(content))
        tar.end()


def lines(*rows: Mapping[str, Any]) -> bytes:
    """The member of lines that holds these rows."""
    return b"".join(form.encode_line(row) for row in rows)


def sha256_of(content: bytes) -> str:
    """As a backup's list of files has it."""
    return hashlib.sha256(content).hexdigest()


TABLES = {"models": lines(MODEL), "platform": lines(PLATFORM), "tasks": b"", "attempts": b""}
"""Members of a backup of one model and nothing else."""

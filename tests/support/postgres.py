"""A PostgreSQL cluster of the tests' own, from the installed binaries, and a fresh database for each test."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.requirements import missing

_SYSTEM_USER = "postgres"
_OPTIONS = {
    "fsync": "off",  # no test cuts the power
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "timezone": "America/New_York",  # nothing may depend on it
}


def _binaries() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = versions[-1] if versions else shutil.which("initdb")
    return Path(found).parent if found else missing("PostgreSQL is not installed")


class PostgresCluster:
    """One server that tests may stop and start again; ``options`` are settings of its own, over those of all tests."""

    def __init__(self, folder: Path, **options: str) -> None:
        self._options = {**_OPTIONS, **options}
        self._binaries = _binaries()
        self._folder = folder
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None  # the server refuses to run as root
        if self._user:
            try:
                account = pwd.getpwnam(self._user)
            except KeyError:
                missing(f"PostgreSQL does not run as root, and there is no user {self._user}")
            os.chown(folder, account.pw_uid, account.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._run("initdb", "-D", str(folder / "data"), "-U", "test", "--auth=trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        options = {**self._options, "port": str(self.port), "unix_socket_directories": str(self._folder)}
        as_text = " ".join(f"-c {name}={value}" for name, value in options.items())
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-l", log, "-o", as_text, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "fast", "-w", "stop")

    def url(self, database: str) -> str:
        return f"postgresql://test@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """The session's server, running."""
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder:
        cluster = PostgresCluster(Path(folder))
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The address of an empty database."""
    name = f"test_{secrets.token_hex(6)}"
    postgres_cluster.execute(f"CREATE DATABASE {name}")
    yield postgres_cluster.url(name)
    postgres_cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/platform.db"
    url: str = request.getfixturevalue("postgres_url")
    return url

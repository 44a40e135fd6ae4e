import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin import Place
from tests.support.private_api import Api, MakeApi, api_maker, make_zip, running
from tests.support.requirements import missing


@pytest.fixture
def make_api(database_url: str, tmp_path: Path) -> Iterator[MakeApi]:
    with api_maker(database_url, tmp_path / "data") as make:
        yield make


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


@pytest.fixture
def sqlite_api(tmp_path: Path) -> Iterator[Api]:
    """For what does not depend on the database."""
    with api_maker(f"sqlite:///{tmp_path}/platform.db", tmp_path / "data") as make:
        yield make()


@pytest.fixture
def make_sqlite_api(tmp_path: Path) -> Iterator[MakeApi]:
    with api_maker(f"sqlite:///{tmp_path}/platform.db", tmp_path / "data") as make:
        yield make


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    """Where ``api`` keeps its things."""
    return Place(database_url, tmp_path / "data")


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """Where ``sqlite_api`` keeps its things."""
    return Place(f"sqlite:///{tmp_path}/platform.db", tmp_path / "data")


@pytest.fixture
def other(tmp_path: Path) -> Place:
    """Where nothing is yet."""
    return Place(f"sqlite:///{tmp_path}/other/platform.db", tmp_path / "other")


@pytest.fixture
def target(database_url: str, tmp_path: Path) -> Place:
    """Where nothing is yet, in each kind of database."""
    return Place(database_url.replace("platform.db", "target.db"), tmp_path / "target")


@pytest.fixture
def backup(sqlite_place: Place, tmp_path: Path) -> Path:
    """Of a platform with a model, a finished task and a pending one."""
    with running(sqlite_place.settings) as api:
        api.register("m", content=make_zip({"weights": b"w"}))
        api.claim(finished := api.new_task())
        api.succeed(finished, body=make_zip({"mask": b"m"}))
        api.new_task()
        sqlite_place.back_up(tmp_path / "b.tar")
    return tmp_path / "b.tar"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for four MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("a small disk is mounted, which needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)

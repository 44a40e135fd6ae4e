from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.private_api import Api, MakeApi, api_maker


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

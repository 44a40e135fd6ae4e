"""What is added to .env leaves alone what a person wrote."""

import os
from pathlib import Path

import pytest

from deployment.env_file import add_missing

REASON = "Made by a test."


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    added = add_missing(tmp_path / ".env", {"A": "1", "B": "2"}, REASON)

    assert added == {"A": "1", "B": "2"}
    assert (tmp_path / ".env").read_text() == "# Made by a test.\nA=1\nB=2\n"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_only_what_has_no_value_is_added(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=mine\nB=\n# C=commented")
    path.chmod(0o640)

    added = add_missing(path, {"A": "1", "B": "2", "C": "3"}, REASON)

    assert added == {"B": "2", "C": "3"}
    assert path.read_text() == "A=mine\nB=\n# C=commented\n# Made by a test.\nB=2\nC=3\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    add_missing(tmp_path / ".env", {"A": "1"}, REASON)
    before = (tmp_path / ".env").stat().st_mtime_ns

    assert add_missing(tmp_path / ".env", {"A": "2"}, REASON) == {}
    assert (tmp_path / ".env").stat().st_mtime_ns == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / ".env").symlink_to("elsewhere")

    add_missing(tmp_path / ".env", {"A": "1"}, REASON)

    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "elsewhere").read_text().endswith("A=1\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 10001, 10002)

    add_missing(tmp_path / ".env", {"A": "1"}, REASON)

    found = (tmp_path / ".env").stat()
    assert (found.st_uid, found.st_gid) == (10001, 10002)


def test_nothing_is_left_beside_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()

    with pytest.raises(IsADirectoryError):
        add_missing(tmp_path / ".env", {"A": "1"}, REASON)

    assert [path.name for path in tmp_path.iterdir()] == [".env"]

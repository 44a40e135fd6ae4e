"""Outputs go into a folder: all or nothing, and nothing outside."""

import zipfile
from pathlib import Path

import pytest

from contracts.archives import ArchiveLimits
from inference_client.errors import ClientError
from inference_client.unpacking import unpack
from tests.support.wire_script import zip_of


def archive_at(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_files_and_empty_folders_come_out_as_they_went_in(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("deep/er/mask.bin", b"\x00\x01")
        archive.mkdir("empty")

    unpack(tmp_path / "out.zip", tmp_path / "out")

    assert (tmp_path / "out" / "deep" / "er" / "mask.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "out" / "empty").is_dir()


def test_an_empty_zip_becomes_an_empty_folder(tmp_path: Path) -> None:
    unpack(archive_at(tmp_path / "out.zip", zip_of()), tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped"])
def test_an_entry_that_leaves_the_folder_stops_everything(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("good", b"")
        archive.writestr(name, b"")

    with pytest.raises(ClientError, match="not unpacked"):
        unpack(tmp_path / "out.zip", tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_folders_nested_beyond_reason_are_refused(tmp_path: Path) -> None:
    archive = archive_at(tmp_path / "out.zip", zip_of(**{"d__" * 900 + "file": b""}))

    with pytest.raises(ClientError, match="nested more than 200 deep"):
        unpack(archive, tmp_path / "out")


def test_a_damaged_entry_leaves_no_half_a_folder(tmp_path: Path) -> None:
    content = bytearray(zip_of(**{"a.txt": b"good", "b.txt": b"to be damaged"}))
    content[content.index(b"to be damaged")] ^= 0xFF

    with pytest.raises(ClientError, match="damaged"):
        unpack(archive_at(tmp_path / "out.zip", bytes(content)), tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    archive = archive_at(tmp_path / "out.zip", zip_of(a=b"", b=b"", c=b""))

    with pytest.raises(ClientError, match="more than 2 entries"):
        unpack(archive, tmp_path / "out", ArchiveLimits(max_entries=2))


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(ClientError, match="not an empty folder"):
        unpack(archive_at(tmp_path / "out.zip", zip_of(a=b"")), tmp_path / "out")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]

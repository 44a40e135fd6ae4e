"""Backups that are cut off, changed, or made to do harm: refused before anything is touched."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from private_api.admin.reading import read_backup
from tests.support.admin import TABLES, Place, lines, sha256_of, write_backup


@pytest.fixture(scope="module")
def small_backup(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "b.tar"
    stored = {"name": "outputs/1-1-ab", "sha256": sha256_of(b"mask"), "size": 4}
    write_backup(path, TABLES, lines(stored), {"outputs/1-1-ab": b"mask"}, file_bytes=4)
    return path.read_bytes()


def _unpacked(backup: bytes) -> dict[str, bytes]:
    with TemporaryDirectory() as work:
        read_backup(io.BytesIO(backup), Path(work), keep=True)
        return {str(path.relative_to(work)): path.read_bytes() for path in Path(work).rglob("*") if path.is_file()}


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_backup_cut_off_anywhere_is_refused(small_backup: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(small_backup) - 1))

    with pytest.raises(PlatformError):
        _unpacked(small_backup[:length])


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_is_found_or_changes_nothing(small_backup: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(small_backup) - 1))
    other_byte = data.draw(st.integers(1, 255)) ^ small_backup[position]
    changed = small_backup[:position] + bytes([other_byte]) + small_backup[position + 1 :]

    try:
        found = _unpacked(changed)
    except PlatformError:
        return
    assert found == _unpacked(small_backup)


def test_the_verify_command_tells_a_whole_backup_from_a_cut_one(
    other: Place, tmp_path: Path, small_backup: bytes
) -> None:
    (tmp_path / "cut.tar").write_bytes(small_backup[:-2000])

    whole = other.command("verify", "-", input=small_backup)
    cut = other.command("verify", str(tmp_path / "cut.tar"))

    assert (whole.returncode, cut.returncode) == (0, 1)
    assert b"whole: 1 model, 0 tasks and 1 stored file" in whole.stderr
    assert b"ends too early" in cut.stderr


def test_a_damaged_backup_is_refused_before_anything_is_touched(sqlite_place: Place, backup: Path) -> None:
    before = sqlite_place.rows(), sqlite_place.files()
    damaged = bytearray(backup.read_bytes())
    damaged[damaged.rindex(b"PK")] ^= 1
    backup.write_bytes(damaged)

    assert "has other bytes than it had" in sqlite_place.refusal(backup, replace=True)

    assert (sqlite_place.rows(), sqlite_place.files()) == before


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(2000), bytes(4096), b"PK" * 600])
def test_what_is_no_backup_is_called_so(other: Place, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)

    assert "no backup" in other.refusal(tmp_path / "x")


def _members(small: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(small)) as tar:
        for member in tar:
            found = tar.extractfile(member)
            yield member, found.read() if found else b""


def _repacked(small: bytes, change: Any, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format) as tar:
        for member, content in _members(small):
            change(member)
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return target.getvalue()


def _at(member_name: str, /, **values: Any) -> Any:
    def change(member: tarfile.TarInfo) -> None:
        if member.name == member_name:
            for attribute, value in values.items():
                setattr(member, attribute, value)

    return change


HOSTILE = {
    "a link for a file": _at("files/outputs/1-1-ab", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
    "a hard link": _at("files/outputs/1-1-ab", type=tarfile.LNKTYPE, linkname="manifest.json", size=0),
    "a device": _at("files/outputs/1-1-ab", type=tarfile.CHRTYPE, size=0),
    "a folder": _at("files.jsonl", type=tarfile.DIRTYPE, size=0),
    "a way out": _at("files/outputs/1-1-ab", name="files/../../../escaped"),
    "an absolute name": _at("files/outputs/1-1-ab", name="/tmp/escaped"),
    "another table": _at("tables/tasks.jsonl", name="tables/models.jsonl"),
    "a link for the manifest": _at("manifest.json", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused(other: Place, tmp_path: Path, small_backup: bytes, name: str) -> None:
    (tmp_path / "hostile.tar").write_bytes(_repacked(small_backup, HOSTILE[name]))

    other.refusal(tmp_path / "hostile.tar")

    assert (other.rows(), other.files()) == ({}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar", "other"]


def test_extended_headers_are_refused(other: Place, tmp_path: Path, small_backup: bytes) -> None:
    bloated = _repacked(small_backup, _at("files.jsonl", pax_headers={"comment": "x" * 5000}), tarfile.PAX_FORMAT)
    (tmp_path / "hostile.tar").write_bytes(bloated)

    assert "does not come where it should" in other.refusal(tmp_path / "hostile.tar")


@pytest.mark.parametrize(
    "name", ["../../escaped", "outputs/../../x", "/tmp/x", "outputs/a/b", "secrets/x", "outputs/", "outputs/.."]
)
def test_a_list_of_files_cannot_lead_out_of_the_folder(other: Place, tmp_path: Path, name: str) -> None:
    good = lines({"name": "outputs/x", "sha256": sha256_of(b"x"), "size": 1})
    members = _with_name(good, name)
    write = {"tables": TABLES, "files": good, "blobs": {"outputs/x": b"x"}, "files_member": members}
    (tmp_path / "hostile.tar").write_bytes(_swapped(tmp_path, **write))

    assert "list of files" in other.refusal(tmp_path / "hostile.tar")


def _with_name(line: bytes, name: str) -> bytes:
    return line.replace(b'"outputs/x"', b'"' + name.encode() + b'"')


def _swapped(folder: Path, tables: Any, files: bytes, blobs: Any, files_member: bytes) -> bytes:
    """A backup whose list of files is another than the one that its manifest was made for, in all but its hashes."""
    write_backup(folder / "good.tar", tables, files, blobs)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member, content in _members((folder / "good.tar").read_bytes()):
            body = files_member if member.name == "files.jsonl" else content
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    (folder / "good.tar").unlink()
    return target.getvalue()


def test_a_file_that_comes_twice_is_refused(other: Place, tmp_path: Path) -> None:
    stored = {"name": "outputs/x", "sha256": sha256_of(b"x"), "size": 1}
    write_backup(tmp_path / "twice.tar", TABLES, lines(stored), {"outputs/x": b"x"})
    once = (tmp_path / "twice.tar").read_bytes()
    target = io.BytesIO()
    write_backup(tmp_path / "list.tar", TABLES, lines(stored, stored))
    listed = {member.name: content for member, content in _members((tmp_path / "list.tar").read_bytes())}
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member, content in _members(once):
            body = listed.get(member.name, content)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
            if member.name.startswith("files/"):
                tar.addfile(member, io.BytesIO(body))
    (tmp_path / "twice.tar").write_bytes(target.getvalue())

    assert "occurs twice" in other.refusal(tmp_path / "twice.tar")

    assert other.files() == {}

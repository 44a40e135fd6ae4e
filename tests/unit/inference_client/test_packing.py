"""Inputs become one zip: names, bytes and folders unchanged."""

import os
import zipfile
from pathlib import Path

import pytest

from contracts.archives import ArchiveLimits, check_archive
from inference_client.errors import InputRefused
from inference_client.packing import packed


def packed_names(*inputs: Path) -> list[str]:
    with packed(inputs) as package, zipfile.ZipFile(package) as archive:
        return archive.namelist()


def write(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_one_zip_is_sent_as_it_is(tmp_path: Path) -> None:
    given = tmp_path / "Scan.ZIP"
    with zipfile.ZipFile(given, "w") as archive:
        archive.writestr("a", "b")

    with packed([given]) as package:
        assert package == given

    assert given.exists()


def test_a_zip_in_name_only_is_refused(tmp_path: Path) -> None:
    given = write(tmp_path / "scan.zip", b"no zip at all")

    with pytest.raises(InputRefused, match="not a zip archive, in spite of its name"):
        packed_names(given)


def test_a_folder_becomes_a_zip_of_its_content_with_empty_folders(tmp_path: Path) -> None:
    write(tmp_path / "in" / "deep" / "er" / "ünïcode name.dcm", b"\x00\x01")
    (tmp_path / "in" / "empty").mkdir()

    with packed([tmp_path / "in"]) as package, zipfile.ZipFile(package) as archive:
        names = archive.namelist()
        content = archive.read("deep/er/ünïcode name.dcm")

    assert names == ["deep/", "deep/er/", "deep/er/ünïcode name.dcm", "empty/"]
    assert content == b"\x00\x01"


def test_an_empty_folder_becomes_an_empty_zip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    assert packed_names(tmp_path / "in") == []


def test_files_and_folders_lie_side_by_side_under_their_names(tmp_path: Path) -> None:
    one = write(tmp_path / "x" / "one.txt")
    two = write(tmp_path / "y" / "two.txt")

    assert packed_names(one, two.parent) == ["one.txt", "y/", "y/two.txt"]


def test_two_files_of_one_name_are_refused_naming_both(tmp_path: Path) -> None:
    one, two = write(tmp_path / "x" / "scan.dcm"), write(tmp_path / "y" / "scan.dcm")

    with pytest.raises(InputRefused, match=r"x/scan\.dcm and .*y/scan\.dcm have the same name"):
        packed_names(one, two)


def test_a_link_to_a_file_inside_is_stored_as_its_content(tmp_path: Path) -> None:
    write(tmp_path / "in" / "real.txt", b"real")
    (tmp_path / "in" / "link.txt").symlink_to("real.txt")

    with packed([tmp_path / "in"]) as package, zipfile.ZipFile(package) as archive:
        assert archive.read("link.txt") == b"real"
        check_archive(package, ArchiveLimits())


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("/etc/hosts", "leads out of the folder"), ("nowhere", "leads nowhere"), (".", "leads back"), ("self", "nowhere")],
)
def test_a_link_that_leads_out_or_nowhere_or_back_is_refused(tmp_path: Path, target: str, sentence: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "self").symlink_to(target)

    with pytest.raises(InputRefused, match=sentence):
        packed_names(tmp_path / "in")


def test_a_pipe_in_a_folder_is_refused_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe")

    with pytest.raises(InputRefused, match="neither a file nor a folder"):
        packed_names(tmp_path / "in")


def test_folders_nested_beyond_reason_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "/".join("d" * 250)).mkdir(parents=True)

    with pytest.raises(InputRefused, match="nested more than 200 deep"):
        packed_names(tmp_path / "in")


def test_a_file_from_before_1980_is_packed(tmp_path: Path) -> None:
    old = write(tmp_path / "old.txt")
    os.utime(old, (0, 0))

    assert packed_names(old) == ["old.txt"]


def test_a_page_of_zeros_is_not_packed_into_what_the_server_takes_for_a_bomb(tmp_path: Path) -> None:
    zeros = write(tmp_path / "mask.raw", bytes(20 * 2**20))

    with packed([zeros]) as package:
        check_archive(package, ArchiveLimits())


def test_ordinary_text_is_packed_smaller_than_it_is(tmp_path: Path) -> None:
    text = write(tmp_path / "table.csv", b"".join(b"%d,%d\n" % (n, n * n) for n in range(100_000)))

    with packed([text]) as package:
        assert package.stat().st_size < text.stat().st_size / 2


def test_the_temporary_zip_is_gone_afterwards(tmp_path: Path) -> None:
    with packed([write(tmp_path / "a.txt")]) as package:
        assert package.exists()

    assert not package.exists()


@pytest.mark.parametrize(("inputs", "sentence"), [((), "nothing to send"), ((Path("/no/such"),), "does not exist")])
def test_nothing_and_what_does_not_exist_are_refused(inputs: tuple[Path, ...], sentence: str) -> None:
    with pytest.raises(InputRefused, match=sentence):
        packed_names(*inputs)

"""Tar streams from an engine are as little trusted as what a model wrote."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import UploadTooLarge
from job_consumer.runner.docker.tar_stream import extract_output, folder_as_tar, whole_tar

BOUNDS = {"max_bytes": 10_000, "max_entries": 100}


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.linkname = link
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@given(size=st.integers(min_value=1, max_value=3000))
def test_the_size_of_the_engines_pieces_does_not_matter(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("received")
    data = tar_of(
        member("output", tarfile.DIRTYPE), member("output/a", content=b"x" * 700), member("output/b/c", content=b"y")
    )

    skipped = extract_output(pieces(data, size), folder, **BOUNDS)

    assert skipped == []
    assert tree(folder) == {"a": b"x" * 700, "b": None, "b/c": b"y"}


@pytest.mark.parametrize(
    "hostile",
    [
        member("output/../../escaped", content=b"x"),
        member("output//etc/escaped", content=b"x"),
        member("output/link", tarfile.SYMTYPE, link="/etc/passwd"),
        member("output/device", tarfile.CHRTYPE),
        member("output/pipe", tarfile.FIFOTYPE),
        member("output/hard", tarfile.LNKTYPE, link="/etc/passwd"),
        member("output/hard", tarfile.LNKTYPE, link="output/../../../../../etc/passwd"),
        member("output/" + "/".join(["deep"] * 600), content=b"x"),
    ],
    ids=lambda hostile: hostile[0].name[:24],
)
def test_what_is_neither_file_nor_folder_or_leaves_the_folder_is_skipped_and_named(
    hostile: tuple[tarfile.TarInfo, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)

    skipped = extract_output([tar_of(hostile, member("output/good", content=b"1"))], folder, **BOUNDS)

    assert len(skipped) == 1
    assert tree(tmp_path) == {"a": None, "a/b": None, "a/b/good": b"1"}


def test_a_file_behind_a_skipped_link_lands_in_a_folder_of_ours(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "received"
    folder.mkdir()
    link = member("output/sub", tarfile.SYMTYPE, link=str(elsewhere))

    extract_output([tar_of(link, member("output/sub/file", content=b"x"))], folder, **BOUNDS)

    assert tree(elsewhere) == {}
    assert tree(folder) == {"sub": None, "sub/file": b"x"}


def test_bytes_are_counted_before_they_are_written(tmp_path: Path) -> None:
    info = tarfile.TarInfo("output/huge")
    info.size = 10**15

    with pytest.raises(UploadTooLarge, match="10000 bytes"):
        extract_output([info.tobuf()], tmp_path, **BOUNDS)

    assert tree(tmp_path) == {}


def test_entries_are_counted(tmp_path: Path) -> None:
    many = tar_of(*(member(f"output/{n}") for n in range(200)))

    with pytest.raises(UploadTooLarge, match="100 files and folders"):
        extract_output([many], tmp_path, **BOUNDS)


@pytest.mark.parametrize("damaged", [b"", b"no tar at all" * 100, tar_of(member("output/a", content=b"x" * 900))[:700]])
def test_a_damaged_stream_is_an_error_and_not_an_output(damaged: bytes, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="damaged"):
        extract_output([damaged], tmp_path, **BOUNDS)


def test_a_folder_survives_the_way_out_and_back(tmp_path: Path) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    (sent / "empty").mkdir(parents=True)
    (sent / "sub").mkdir()
    (sent / "sub" / "ü \n name").write_bytes(os.urandom(5000))
    (sent / "program").write_bytes(b"#!")
    (sent / "program").chmod(0o755)
    received.mkdir()

    skipped = extract_output(whole_tar(folder_as_tar(sent, "/output")), received, **BOUNDS)

    assert skipped == []
    assert tree(received) == tree(sent)
    assert os.access(received / "program", os.X_OK)


def test_names_that_are_no_text_travel_too(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")

    with tarfile.open(fileobj=io.BytesIO(b"".join(whole_tar(folder_as_tar(tmp_path / "sent", "/in"))))) as tar:
        names = [os.fsencode(name) for name in tar.getnames()]

    assert names == [b"in", b"in/\xff\xfe"]


def test_the_folder_itself_gets_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    data = b"".join(whole_tar(folder_as_tar(tmp_path, "/a/b", 0o777)))

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (info,) = tar.getmembers()

    assert (info.name, info.mode, info.isdir()) == ("a/b", 0o777, True)


def test_a_large_folder_is_never_whole_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(64 * 2**20)

    sizes = [len(piece) for piece in whole_tar(folder_as_tar(tmp_path, "/input"))]

    assert sum(sizes) > 64 * 2**20
    assert max(sizes) <= 3 * 2**20

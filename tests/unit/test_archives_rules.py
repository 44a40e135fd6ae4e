"""Which zips are refused, and that no bytes whatsoever raise anything but a refusal."""

import io
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.archives import ArchiveLimits, check_archive, safe_path
from contracts.errors import HostileArchive, NotAnArchive
from job_consumer.archive import unpack

LIMITS = ArchiveLimits(max_entries=50, max_unpacked_bytes=1 << 20)
UNIX = 3


def zipped(*entries: str | zipfile.ZipInfo, content: bytes = b"content", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # duplicate names are the point
        for entry in entries:
            name = entry if isinstance(entry, str) else entry.filename
            archive.writestr(entry, b"" if name.endswith("/") else content, method)
    return buffer.getvalue()


def entry_of_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = UNIX
    info.external_attr = mode << 16
    return info


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[bytes], str]:
    """Asserts that the bytes are refused at the post and at the consumer alike; the reason."""

    def refused(data: bytes, limits: ArchiveLimits = LIMITS) -> str:
        path = tmp_path / "given.zip"
        path.write_bytes(data)
        target = tmp_path / "target"
        target.mkdir()
        with pytest.raises(HostileArchive) as at_the_post:
            check_archive(path, limits)
        with pytest.raises(HostileArchive):
            unpack(path, target, limits)
        assert list(target.iterdir()) == []
        return at_the_post.value.message

    return refused


@pytest.mark.parametrize(
    "name",
    [
        "../up", "a/../../up", "a/..", "..", "..\\up", "a\\..\\up", "a/..\\up", "../", "a/../", "/absolute", "\\absolute",
        "//host/share", "\\\\host\\share", "C:/file", "c:file", "C:\\file", "n" * 256, "é" * 128, "/".join(["name"] * 500),
        ".", "./.",
    ],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(refusal: Callable[[bytes], str], name: str) -> None:
    assert "The zip holds" in refusal(zipped(name))


@settings(deadline=None)
@given(
    before=st.lists(st.text(max_size=5), max_size=3),
    after=st.lists(st.text(max_size=5), max_size=3),
    slash=st.sampled_from("/\\"),
)
def test_no_name_with_a_step_up_is_safe(before: list[str], after: list[str], slash: str) -> None:
    with pytest.raises(HostileArchive):
        safe_path(slash.join([*before, "..", *after]))


@settings(deadline=None)
@given(st.text(min_size=1), st.sampled_from(["/", "\\", "C:", "z:\\"]))
def test_no_absolute_name_is_safe(name: str, prefix: str) -> None:
    with pytest.raises(HostileArchive):
        safe_path(prefix + name)


@settings(deadline=None)
@given(st.text())
def test_a_safe_name_stays_below_its_folder(name: str) -> None:
    try:
        path = safe_path(name)
    except HostileArchive:
        return

    assert not path.is_absolute()
    assert ".." not in path.parts
    assert "\x00" not in str(path)


def test_a_name_with_a_nul_is_refused(refusal: Callable[[bytes], str]) -> None:
    data = zipped("aXb").replace(b"aXb", b"a\x00b")

    assert "no file name" in refusal(data)


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a/", "a"), ("a", "a/"), ("a//b", "a/b"), ("./a", "a"), ("a/./b", "a/b"), ("a/", "a//")]
)
def test_two_entries_of_one_name_are_refused(refusal: Callable[[bytes], str], names: tuple[str, str]) -> None:
    assert "two entries" in refusal(zipped(*names))


def test_one_name_in_two_encodings_is_two_entries_of_one_name(refusal: Callable[[bytes], str]) -> None:
    # Flagged UTF-8, and the same bytes without the flag: placeholders of the same length are replaced in the second.
    data = zipped("é", "XY").replace(b"XY", "é".encode())

    assert "two entries" in refusal(data)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b", "a/b/c/d"), ("./a", "a/b")])
def test_a_file_where_a_folder_is_needed_is_refused(refusal: Callable[[bytes], str], names: tuple[str, str]) -> None:
    assert "both as a file and as a folder" in refusal(zipped(*names))


@pytest.mark.parametrize(
    ("kind", "word"),
    [(stat.S_IFLNK, "link"), (stat.S_IFCHR, "device"), (stat.S_IFBLK, "device"), (stat.S_IFIFO, "pipe"), (stat.S_IFSOCK, "pipe")],
)  # fmt: skip
def test_what_is_neither_file_nor_folder_is_refused(refusal: Callable[[bytes], str], kind: int, word: str) -> None:
    assert word in refusal(zipped(entry_of_mode("entry", kind | 0o777)))


def test_a_folder_with_bytes_of_its_own_is_refused(refusal: Callable[[bytes], str]) -> None:
    assert "bytes of its own" in refusal(zipped(entry_of_mode("folder", stat.S_IFDIR | 0o755)))


def test_an_encrypted_entry_is_refused(refusal: Callable[[bytes], str]) -> None:
    data = bytearray(zipped("secret"))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[data.index(b"PK\x03\x04") + 6] |= 1

    assert "without a password" in refusal(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_on_memory_are_refused(
    refusal: Callable[[bytes], str], method: int
) -> None:
    assert "use deflate or store" in refusal(zipped("file", method=method))


def test_more_entries_than_the_limit_are_refused(refusal: Callable[[bytes], str]) -> None:
    assert "more than 50 entries" in refusal(zipped(*map(str, range(51))))


def test_as_many_entries_as_the_limit_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "given.zip").write_bytes(zipped(*map(str, range(50))))

    assert len(check_archive(tmp_path / "given.zip", LIMITS)) == 50


def test_a_directory_too_long_to_be_held_is_refused_before_it_is_read(refusal: Callable[[bytes], str]) -> None:
    entries = []
    for number in range(30):
        info = zipfile.ZipInfo(str(number))
        info.comment = b"c" * 65_000
        entries.append(info)

    assert "directory is longer" in refusal(zipped(*entries))


def test_more_bytes_than_the_limit_are_refused(refusal: Callable[[bytes], str]) -> None:
    assert "the limit is 1048576" in refusal(zipped("a", "b", content=bytes(600_000)))


def test_a_ratio_that_no_honest_file_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(zipped("zeros", content=bytes(32 << 20)))

    with pytest.raises(HostileArchive, match="ratio"):
        check_archive(tmp_path / "bomb.zip", ArchiveLimits())


def test_a_small_page_of_zeros_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_bytes(zipped("zeros", content=bytes(1 << 20)))

    assert len(check_archive(tmp_path / "page.zip", ArchiveLimits())) == 1


@pytest.mark.parametrize("declared", [0, 3, 8, 100_000], ids=["nothing", "less", "more", "much more"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_header_that_lies_about_the_size_is_found_out(tmp_path: Path, declared: int, method: int) -> None:
    data = bytearray(zipped("lie", content=b"content", method=method))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, declared)
    struct.pack_into("<L", data, data.index(b"PK\x03\x04") + 22, declared)

    assert _refused(bytes(data), tmp_path)


def test_a_wrong_checksum_is_found_out(tmp_path: Path) -> None:
    data = zipped("file", content=b"content", method=zipfile.ZIP_STORED).replace(b"content", b"c0ntent")

    assert _refused(data, tmp_path)


def test_a_zip_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    data = zipped("folder/", "folder/file.txt", "other", content=b"some content that deflates " * 3)

    assert all(_refused(data[:length], tmp_path) for length in range(len(data)))


def test_an_empty_file_is_no_zip(tmp_path: Path) -> None:
    assert _refused(b"", tmp_path)


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"PK\x05\x06" + bytes(18))
def test_random_bytes_are_refused_or_a_zip(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _refused(data, Path(folder))


_SOUND = zipped("folder/", "folder/file.txt", "other", content=b"some content that deflates " * 3)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(_SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_zip_with_changed_bytes_is_refused_or_unpacked(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_SOUND)
    for position, byte in changes:
        data[position] = byte

    with tempfile.TemporaryDirectory() as folder:
        _refused(bytes(data), Path(folder))


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=56, max_size=56), st.integers(0, 2**64 - 1))
def test_large_offsets_in_the_wide_format_are_refused(record: bytes, offset: int) -> None:
    end64 = b"PK\x06\x06" + record[4:]
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset if offset % 2 else 0, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)

    with tempfile.TemporaryDirectory() as folder:
        _refused(end64 + locator + end, Path(folder))


def _refused(data: bytes, folder: Path) -> bool:
    """Whether the bytes are refused; any error but a refusal fails the test."""
    target = Path(tempfile.mkdtemp(dir=folder))
    path = folder / "given.zip"
    path.write_bytes(data)
    try:
        unpack(path, target, LIMITS)
    except (NotAnArchive, HostileArchive):
        return True
    return False


def test_folders_that_names_imply_count_as_entries(refusal: Callable[[bytes], str]) -> None:
    deep = zipped(*(f"{branch}/" + "d/" * 20 + "file" for branch in range(3)))

    assert "more than 50 entries" in refusal(deep)


def test_a_folder_that_many_names_share_counts_once(tmp_path: Path) -> None:
    (tmp_path / "given.zip").write_bytes(zipped(*("d/" * 20 + str(number) for number in range(20))))

    assert len(check_archive(tmp_path / "given.zip", LIMITS)) == 20

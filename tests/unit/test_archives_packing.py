"""What goes into a zip comes out of it, and nothing else does."""

import os
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.archives import ArchiveLimits, safe_path
from contracts.errors import HostileArchive, UploadTooLarge
from job_consumer.archive import pack, unpack
from job_consumer.runner.scratch import remove_tree

Tree = dict[str, Any]
"""Names to bytes, or to the tree of a folder."""

PLENTY = 1 << 30


def _is_name(name: str) -> bool:
    try:
        return safe_path(name).parts == (name,)
    except HostileArchive:
        return False


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\x00"), min_size=1, max_size=60).filter(
    _is_name
)
trees = st.recursive(
    st.dictionaries(names, st.binary(max_size=300), max_size=4),
    lambda inner: st.dictionaries(names, st.binary(max_size=300) | inner, max_size=4),
    max_leaves=8,
)


def write(tree: Tree, folder: Path) -> None:
    for name, content in tree.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).mkdir()
            write(content, folder / name)


def read(folder: Path) -> Tree:
    return {path.name: read(path) if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def unpacked(zip_path: Path) -> Path:
    folder = Path(tempfile.mkdtemp(dir=zip_path.parent))
    unpack(zip_path, folder, ArchiveLimits())
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@settings(max_examples=150, deadline=None)
@given(trees)
def test_unpacking_what_was_packed_gives_the_same_tree(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder, zip_path = Path(parent, "tree"), Path(parent, "tree.zip")
        folder.mkdir()
        write(tree, folder)

        skipped = pack(folder, zip_path, PLENTY)

        assert skipped == []
        assert read(unpacked(zip_path)) == tree


def test_an_empty_folder_is_an_empty_zip(output: Path, tmp_path: Path) -> None:
    assert pack(output, tmp_path / "o.zip", 0) == []

    assert zipfile.ZipFile(tmp_path / "o.zip").namelist() == []
    assert read(unpacked(tmp_path / "o.zip")) == {}


def test_other_tools_read_what_was_packed(output: Path, tmp_path: Path) -> None:
    write({"big": os.urandom(3 << 20), "zeros": bytes(3 << 20), "folder": {"empty": {}, "ü": b"u"}}, output)

    pack(output, tmp_path / "o.zip", PLENTY)

    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["big", "zeros", "folder/ü", "folder/empty/"]
        methods = {info.filename: info.compress_type for info in archive.infolist()}
    assert methods["big"] == zipfile.ZIP_STORED
    assert methods["zeros"] == zipfile.ZIP_DEFLATED


def test_what_is_unpacked_is_readable_by_every_user(output: Path, tmp_path: Path) -> None:
    write({"folder": {"file": b"", "program": b""}}, output)
    (output / "folder" / "file").chmod(0o600)
    (output / "folder" / "program").chmod(0o700)
    (output / "folder").chmod(0o700)
    pack(output, tmp_path / "o.zip", PLENTY)

    mask = os.umask(0o077)
    try:
        folder = unpacked(tmp_path / "o.zip")
    finally:
        os.umask(mask)

    modes = {path.name: path.stat().st_mode & 0o7777 for path in folder.rglob("*")}
    assert modes == {"folder": 0o755, "file": 0o644, "program": 0o755}


@pytest.mark.parametrize("seconds", [-(10**9), 0, 1, 4_354_819_200, 10**11])
def test_times_that_a_zip_cannot_hold_do_not_matter(output: Path, tmp_path: Path, seconds: int) -> None:
    write({"file": b"content"}, output)
    os.utime(output / "file", (seconds, seconds))

    pack(output, tmp_path / "o.zip", PLENTY)

    assert read(unpacked(tmp_path / "o.zip")) == {"file": b"content"}


def test_links_pipes_and_sockets_are_skipped_by_name(output: Path, tmp_path: Path) -> None:
    write({"file": b"content", "folder": {}}, output)
    (output / "link").symlink_to("/etc/passwd")
    (output / "folder" / "up").symlink_to("/")
    (output / "dangling").symlink_to("nowhere")
    os.mkfifo(output / "pipe")

    skipped = pack(output, tmp_path / "o.zip", PLENTY)

    assert sorted(skipped) == ["dangling", "folder/up", "link", "pipe"]
    assert read(unpacked(tmp_path / "o.zip")) == {"file": b"content", "folder": {}}


@pytest.mark.parametrize("name", [b"\xff\xfe", b"..\\up", b"C:drive"])
def test_names_that_no_honest_zip_has_are_skipped_by_name(output: Path, tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(output) + b"/" + name)).write_bytes(b"")

    skipped = pack(output, tmp_path / "o.zip", PLENTY)

    assert skipped == [name.decode("utf-8", "backslashreplace")]
    assert read(unpacked(tmp_path / "o.zip")) == {}


@pytest.fixture
def swap(monkeypatch: pytest.MonkeyPatch, output: Path) -> Iterator[Any]:
    """Arms a trap: right after the packer looked at ``victim``, something else takes its place."""
    really_stat = os.stat
    replacements: list[Any] = []

    def stat_then_swap(path: Any, **options: Any) -> os.stat_result:
        result = really_stat(path, **options)
        if path == "victim" and replacements:
            (output / "victim").rename(output.parent / "moved away")
            replacements.pop()(output / "victim")
        return result

    monkeypatch.setattr(os, "stat", stat_then_swap)
    yield replacements.append
    assert replacements == [], "the trap was not sprung"


def test_a_file_swapped_for_a_link_is_not_followed(output: Path, tmp_path: Path, swap: Any) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    write({"victim": b"harmless"}, output)
    swap(lambda victim: victim.symlink_to(tmp_path / "secret"))

    assert pack(output, tmp_path / "o.zip", PLENTY) == ["victim"]

    assert read(unpacked(tmp_path / "o.zip")) == {}


def test_a_file_swapped_for_a_pipe_does_not_block(output: Path, tmp_path: Path, swap: Any) -> None:
    write({"victim": b"harmless"}, output)
    swap(os.mkfifo)

    assert pack(output, tmp_path / "o.zip", PLENTY) == ["victim"]


def test_a_folder_swapped_for_a_link_is_not_followed(output: Path, tmp_path: Path, swap: Any) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"secret")
    write({"victim": {"harmless": b""}}, output)
    swap(lambda victim: victim.symlink_to(tmp_path / "elsewhere"))

    assert pack(output, tmp_path / "o.zip", PLENTY) == ["victim"]

    assert read(unpacked(tmp_path / "o.zip")) == {}


def test_more_bytes_than_allowed_are_refused_and_leave_no_zip(output: Path, tmp_path: Path) -> None:
    write({"a": bytes(600), "b": bytes(500)}, output)

    with pytest.raises(UploadTooLarge, match="1099 bytes"):
        pack(output, tmp_path / "o.zip", 1099)

    assert not (tmp_path / "o.zip").exists()
    assert pack(output, tmp_path / "o.zip", 1100) == []


def test_a_hole_of_a_terabyte_is_refused_without_reading_it(output: Path, tmp_path: Path) -> None:
    with (output / "hole").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(UploadTooLarge):
        pack(output, tmp_path / "o.zip", PLENTY)


def test_more_files_and_folders_than_allowed_are_refused(output: Path, tmp_path: Path) -> None:
    write({"a": b"", "b": {"c": b"", "d": b""}}, output)

    with pytest.raises(UploadTooLarge, match="more than 3 files and folders"):
        pack(output, tmp_path / "o.zip", PLENTY, max_entries=3)


@pytest.fixture
def deep_tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied of trees too deep for pytest to remove."""
    (tmp_path / "deep").mkdir()
    yield tmp_path / "deep"
    assert remove_tree(tmp_path / "deep")


def test_folders_nested_deeper_than_any_path_are_cut_off_not_followed(deep_tmp_path: Path) -> None:
    output, zip_path = deep_tmp_path / "output", deep_tmp_path / "o.zip"
    output.mkdir()
    # One descriptor at a time: no path of this length can be given to the kernel.
    here = os.open(output, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    skipped = pack(output, zip_path, PLENTY)

    assert [len(name) for name in skipped] == [2049]
    assert zipfile.ZipFile(zip_path).namelist() == ["d/" * 1024]
    assert unpacked(zip_path).joinpath("d/" * 1024).is_dir()


def test_an_existing_file_is_not_overwritten(output: Path, tmp_path: Path) -> None:
    (tmp_path / "o.zip").write_bytes(b"mine")

    with pytest.raises(FileExistsError):
        pack(output, tmp_path / "o.zip", PLENTY)

    assert (tmp_path / "o.zip").read_bytes() == b"mine"


def test_a_missing_target_folder_is_the_disks_trouble(output: Path, tmp_path: Path) -> None:
    write({"file": b""}, output)
    pack(output, tmp_path / "o.zip", PLENTY)

    with pytest.raises(OSError, match="No such file"):
        unpack(tmp_path / "o.zip", tmp_path / "missing", ArchiveLimits())


def test_no_file_is_held_in_memory(output: Path, tmp_path: Path) -> None:
    chunk = os.urandom(1 << 20)
    with (output / "big").open("wb") as file:
        for _ in range(48):
            file.write(chunk)

    tracemalloc.start()
    try:
        pack(output, tmp_path / "o.zip", PLENTY)
        unpacked(tmp_path / "o.zip")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20

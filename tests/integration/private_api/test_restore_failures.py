"""A restore that fails or dies at any moment leaves its target as it was, or is done wholly."""

import signal
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest

from tests.support.admin import COMMAND_SECONDS, MODEL, TABLES, Place, lines, sha256_of, write_backup
from tests.support.private_api import running
from tests.support.waiting import eventually


def test_a_disk_without_room_is_noticed_first(small_disk: Path, tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/restored.db", small_disk / "data")
    blob = bytes(6 * 2**20)
    stored = {"name": "outputs/x", "sha256": sha256_of(blob), "size": len(blob)}
    write_backup(tmp_path / "b.tar", TABLES, lines(stored), {"outputs/x": blob}, file_bytes=len(blob))

    assert "full" in place.refusal(tmp_path / "b.tar")

    assert (place.rows(), place.files()) == ({}, {})


def test_a_disk_that_fills_up_in_mid_restore_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/restored.db", small_disk / "data")
    blob = bytes(6 * 2**20)
    stored = {"name": "outputs/x", "sha256": sha256_of(blob), "size": len(blob)}
    write_backup(tmp_path / "b.tar", TABLES, lines(stored), {"outputs/x": blob}, file_bytes=0)

    said = place.command("restore", str(tmp_path / "b.tar"))

    assert said.returncode == 1
    assert b"No space left on device" in said.stderr
    assert (place.rows(), place.files()) == ({}, {})


def test_a_database_without_room_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    place = Place(f"sqlite:///{small_disk}/platform.db", tmp_path / "restored")
    models = [{**MODEL, "id": n, "uid": f"m{n}", "deleted_at": 1.0, "description": "x" * 10_000} for n in range(1, 900)]
    write_backup(tmp_path / "b.tar", {**TABLES, "models": lines(*models)})

    assert "disk that holds the database is full" in place.refusal(tmp_path / "b.tar")

    assert (place.rows(), place.files()) == ({}, {})


def test_files_that_cannot_be_moved_are_taken_back_with_their_rows(
    small_disk: Path, tmp_path: Path, backup: Path
) -> None:
    place = Place(f"sqlite:///{tmp_path}/restored.db", tmp_path / "restored")
    place.data_dir.mkdir()
    (place.data_dir / "outputs").symlink_to(small_disk)  # another file system: renames cannot cross

    said = place.command("restore", str(backup))

    assert said.returncode == 1
    assert (place.rows(), place.files()) == ({}, {})


def test_a_restore_killed_while_it_reads_leaves_what_was_there(
    sqlite_place: Place, backup: Path, tmp_path: Path
) -> None:
    whole = backup.read_bytes()
    before = sqlite_place.rows(), sqlite_place.files()
    with sqlite_place.process("restore", "-", "--replace", stdin=PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(whole[:-3000])
        process.stdin.flush()
        eventually(lambda: any(name.startswith("restore/files/") for name in sqlite_place.files()))
        process.kill()

    with running(sqlite_place.settings):
        assert (sqlite_place.rows(), sqlite_place.files()) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_restore_that_is_told_to_stop_leaves_nothing(other: Place, backup: Path, number: signal.Signals) -> None:
    with other.process("restore", "-", stdin=PIPE, stderr=DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(backup.read_bytes()[:-3000])
        process.stdin.flush()
        eventually(lambda: any(name.startswith("restore/files/") for name in other.files()))
        process.send_signal(number)
        process.wait(COMMAND_SECONDS)

    assert process.returncode != 0
    assert (other.rows(), other.files()) == ({}, {})


@pytest.mark.parametrize("moved", [1, 100, 199])
def test_a_restore_killed_at_its_end_is_done_wholly_or_not_at_all(tmp_path: Path, moved: int) -> None:
    place = Place(f"sqlite:///{tmp_path}/restored.db", tmp_path / "restored")
    stored = [{"name": f"outputs/{n}-1-x", "sha256": sha256_of(b"%d" % n), "size": len(b"%d" % n)} for n in range(200)]
    write_backup(tmp_path / "b.tar", TABLES, lines(*stored), {f"outputs/{n}-1-x": b"%d" % n for n in range(200)})
    outputs = place.data_dir / "outputs"
    with place.process("restore", str(tmp_path / "b.tar"), stderr=DEVNULL) as process:
        eventually(lambda: outputs.is_dir() and len(list(outputs.iterdir())) >= moved, COMMAND_SECONDS, every=0.0002)
        process.kill()

    with running(place.settings) as api:
        models = [row["human_readable_id"] for row in place.rows()["models"]]
        eventually(lambda: not place.files())  # no row names these: rows or no rows, a start removes them
        assert models in ([], ["m"])
        assert api.poll(api.new_task("m")).status_code == 551

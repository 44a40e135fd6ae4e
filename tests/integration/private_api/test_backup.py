"""Backups of a platform that works meanwhile."""

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import pytest
from sqlalchemy import insert, text

from contracts import routes
from private_api.admin.backup import back_up
from private_api.admin.destination import new_file
from private_api.admin.reading import read_backup
from private_api.storage.database import Database
from private_api.storage.schema import db_now, models
from private_api.storage.workspace import BACKUP
from tests.support.admin import COMMAND, COMMAND_SECONDS, Place
from tests.support.private_api import Api, make_zip, running
from tests.support.waiting import eventually


def finished_task(api: Api, body: bytes) -> str:
    uid = api.new_task()
    assert api.claim(uid).status_code == 200
    assert api.succeed(uid, body=body).json() == {"state": "finished"}
    return uid


def test_a_backup_of_a_running_platform_brings_everything_back(
    place: Place, api: Api, other: Place, tmp_path: Path
) -> None:
    content, output = make_zip({"weights": b"w"}), make_zip({"mask": b"m"})
    api.register("m", content=content)
    finished, pending = finished_task(api, output), api.new_task()
    kept = {uid: api.status(uid) for uid in (finished, pending)}

    report = place.back_up(tmp_path / "b.tar")
    api.new_task()
    other.restore(tmp_path / "b.tar")

    assert (report.missing.count, report.damaged.count) == (0, 0)
    with running(other.settings) as restored:
        assert restored.poll(finished).content == output
        assert {uid: restored.status(uid) for uid in kept} == kept
        assert restored.claim(pending).json()["model"]["content"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert restored.http.get(routes.PLATFORM).json() == api.http.get(routes.PLATFORM).json()
    assert place.files().keys() >= other.files().keys()


class Storm:
    """Clients and consumers that post, finish, cancel and delete until told to stop."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stop = threading.Event()
        self.outputs: dict[str, bytes] = {}
        self.rounds = 0

    def run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            output = make_zip({"out": f"{number} {count}".encode()})
            uid = self._api.new_task()
            self.outputs[uid] = output
            if count % 3 == 0:
                self._api.http.post(routes.TASK_CANCEL.format(uid=uid))
            else:
                self._api.claim(uid, f"c{number}")
                self._api.succeed(uid, consumer=f"c{number}", body=output)
            if count % 3 == 1:
                assert self._api.http.delete(routes.TASK.format(uid=uid)).is_success
            self.rounds += 1

    def stop(self) -> None:
        self._stop.set()


def test_a_backup_in_a_storm_of_posts_and_deletes_is_consistent(
    place: Place, api: Api, other: Place, tmp_path: Path
) -> None:
    storm = Storm(api)
    api.register("m")
    with ThreadPoolExecutor(3) as threads:
        runs = [threads.submit(storm.run, number) for number in range(3)]
        try:
            eventually(lambda: storm.rounds > 30, 60)
            reports = [place.back_up(tmp_path / f"{number}.tar") for number in range(3)]
        finally:
            storm.stop()
        for run in runs:
            run.result(60)

    report = other.restore(tmp_path / "2.tar")

    missing = {name for each in reports[2:] for name in each.missing.first}
    assert other.files().keys() == {name for name in _named(other) if name not in missing}
    with running(other.settings) as restored:
        polls = {row["uid"]: restored.poll(row["uid"]) for row in other.rows()["tasks"] if row["deleted_at"] is None}
    ready = [uid for uid, answer in polls.items() if answer.status_code == 200]
    assert ready
    assert {uid: polls[uid].content for uid in ready} == {uid: storm.outputs[uid] for uid in ready}
    assert {answer.status_code for answer in polls.values()} <= {200, 551, 552, 553}
    assert sum(answer.status_code == 553 for answer in polls.values()) <= len(missing)
    assert sum(answer.status_code == 551 for answer in polls.values()) == report.waiting


def _named(place: Place) -> set[str]:
    rows = place.rows()
    columns = [("models", "content_blob"), ("tasks", "input_blob"), ("tasks", "output_blob")]
    return {row[column] for table, column in columns for row in rows[table] if row[column] is not None}


def test_the_snapshot_stands_still_while_the_platform_goes_on(place: Place, api: Api) -> None:
    api.register("m")
    count = text("SELECT count(*) FROM tasks")

    with closing(Database(place.database_url)) as database, database.snapshot() as tx:
        before = tx.execute(count).scalar_one()
        api.new_task()
        after = tx.execute(count).scalar_one()

    assert (before, after) == (0, 0)


def test_the_snapshot_cannot_write_to_postgresql(postgres_url: str, tmp_path: Path) -> None:
    place = Place(postgres_url, tmp_path / "data")
    with running(place.settings):
        pass

    with (
        closing(Database(place.database_url)) as database,
        pytest.raises(Exception, match="read-only"),
        database.snapshot() as tx,
    ):
        tx.execute(insert(models).values(uid="u", limits={}, created_at=db_now()))


class Interrupting:
    """A destination that does something at the first byte."""

    def __init__(self, file: IO[bytes], act: Any) -> None:
        self._file = file
        self._act = act

    def write(self, piece: bytes) -> int:
        act, self._act = self._act, lambda: None
        act()
        return self._file.write(piece)


def test_what_is_deleted_while_the_backup_flows_is_in_it(
    sqlite_place: Place, sqlite_api: Api, other: Place, tmp_path: Path
) -> None:
    output = make_zip({"mask": b"m"})
    uid = finished_task(sqlite_api, output)

    with new_file(tmp_path / "b.tar") as file:
        delete = Interrupting(file, lambda: sqlite_api.http.delete(routes.TASK.format(uid=uid)))
        report = back_up(sqlite_place.target, delete)  # type: ignore[arg-type]
    other.restore(tmp_path / "b.tar")

    assert sqlite_api.poll(uid).status_code == 554
    assert report.missing.count == 0
    assert sqlite_place.files() == {}
    with running(other.settings) as restored:
        assert restored.poll(uid).content == output


def test_a_second_backup_at_the_same_time_is_refused(sqlite_place: Place, sqlite_api: Api, tmp_path: Path) -> None:
    second = []
    with new_file(tmp_path / "b.tar") as file:
        again = Interrupting(file, lambda: second.append(sqlite_place.command("backup", str(tmp_path / "c.tar"))))
        back_up(sqlite_place.target, again)  # type: ignore[arg-type]

    assert second[0].returncode == 1
    assert b"under way" in second[0].stderr
    assert not list(tmp_path.glob("c.tar*"))


def test_private_api_starts_while_a_backup_flows_and_leaves_it_alone(
    sqlite_place: Place, other: Place, tmp_path: Path
) -> None:
    with running(sqlite_place.settings) as api:
        uid = finished_task(api, make_zip())

    def start() -> None:
        with running(sqlite_place.settings) as again:
            assert again.http.delete(routes.TASK.format(uid=uid)).is_success

    with new_file(tmp_path / "b.tar") as file:
        back_up(sqlite_place.target, Interrupting(file, start))  # type: ignore[arg-type]
    other.restore(tmp_path / "b.tar")

    assert [name for name in other.files() if name.startswith("outputs/")]


def test_a_file_that_is_gone_is_named_and_its_task_says_so(
    sqlite_place: Place, sqlite_api: Api, other: Place, tmp_path: Path
) -> None:
    gone, kept = finished_task(sqlite_api, make_zip()), finished_task(sqlite_api, make_zip())
    name = next(name for name in sqlite_place.files() if name.startswith("outputs/1-"))
    (sqlite_place.data_dir / name).unlink()

    said = sqlite_place.command("backup", str(tmp_path / "b.tar"))
    other.restore(tmp_path / "b.tar")

    assert said.returncode == 0
    assert name.encode() in said.stderr
    with running(other.settings) as restored:
        assert [restored.poll(uid).status_code for uid in (gone, kept)] == [553, 200]


@pytest.mark.parametrize("damage", [b"other bytes", b""])
def test_a_stored_file_that_the_disk_has_damaged_is_named_and_left_out(
    sqlite_place: Place, sqlite_api: Api, other: Place, tmp_path: Path, damage: bytes
) -> None:
    hurt, kept = finished_task(sqlite_api, make_zip()), finished_task(sqlite_api, make_zip())
    name = next(name for name in sqlite_place.files() if name.startswith("outputs/1-"))
    (sqlite_place.data_dir / name).write_bytes(damage)

    made = sqlite_place.command("backup", str(tmp_path / "b.tar"))
    verified = sqlite_place.command("verify", str(tmp_path / "b.tar"))
    other.restore(tmp_path / "b.tar")

    assert b"damaged" in made.stderr
    assert name.encode() in made.stderr
    assert (verified.returncode, b"1 stored file" in verified.stderr) == (0, True)
    with running(other.settings) as restored:
        assert [restored.poll(uid).status_code for uid in (hurt, kept)] == [553, 200]


def test_a_backup_is_a_tar_that_only_its_owner_may_read(sqlite_place: Place, sqlite_api: Api, tmp_path: Path) -> None:
    finished_task(sqlite_api, make_zip())

    sqlite_place.back_up(tmp_path / "b.tar")

    with tarfile.open(tmp_path / "b.tar") as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("manifest.json") or pytest.fail("no file"))
    assert names[0] == "manifest.json"
    assert names[-1] == "end.json"
    assert manifest["tables"]["tasks"]["rows"] == 1
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600


def _blocked_backup(place: Place) -> Any:
    """A backup in mid-flow: it waits for a reader of its stdout."""
    process = place.process("backup", "-", stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    assert process.stdout.read(512)
    assert [path for path in (place.data_dir / BACKUP).rglob("*") if path.is_file()]
    return process


@pytest.fixture
def with_a_large_file(sqlite_place: Place) -> Place:
    with running(sqlite_place.settings) as api:
        finished_task(api, make_zip({"random": os.urandom(2**20)}))
    return sqlite_place


def test_a_killed_backup_is_tidied_by_the_next_one(with_a_large_file: Place, tmp_path: Path) -> None:
    with _blocked_backup(with_a_large_file) as process:
        process.kill()
    left = with_a_large_file.files()

    report = with_a_large_file.back_up(tmp_path / "b.tar")

    assert any(name.startswith("backup/") for name in left)
    assert report.missing.count == 0
    assert not any(name.startswith("backup/") for name in with_a_large_file.files())


def test_a_killed_backup_is_tidied_when_private_api_starts(with_a_large_file: Place) -> None:
    with _blocked_backup(with_a_large_file) as process:
        process.kill()

    with running(with_a_large_file.settings):
        assert not any(name.startswith("backup/") for name in with_a_large_file.files())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_backup_that_is_told_to_stop_leaves_nothing(with_a_large_file: Place, number: signal.Signals) -> None:
    with _blocked_backup(with_a_large_file) as process:
        process.send_signal(number)
        process.wait(COMMAND_SECONDS)

    assert process.returncode != 0
    assert not any(name.startswith("backup/") for name in with_a_large_file.files())


def test_a_reader_that_goes_away_ends_the_backup_with_one_line(with_a_large_file: Place) -> None:
    with _blocked_backup(with_a_large_file) as process:
        process.stdout.close()
        said = process.stderr.read()
        process.wait(COMMAND_SECONDS)

    assert process.returncode == 1
    assert said.count(b"\n") == 1
    assert not any(name.startswith("backup/") for name in with_a_large_file.files())


def test_a_full_disk_leaves_no_half_backup(with_a_large_file: Place, small_disk: Path) -> None:
    (small_disk / "b.tar").write_bytes(b"the one of yesterday")
    (small_disk / "fill").write_bytes(bytes(3_500_000))

    said = with_a_large_file.command("backup", str(small_disk / "b.tar"))

    assert said.returncode == 1
    assert said.stderr == b"private_api.admin: No space left on device\n"
    assert (small_disk / "b.tar").read_bytes() == b"the one of yesterday"
    assert sorted(path.name for path in small_disk.iterdir()) == ["b.tar", "fill"]


def test_a_terminal_gets_no_backup(sqlite_place: Place, sqlite_api: Api) -> None:
    master, slave = pty.openpty()
    try:
        with sqlite_place.process("backup", "-", stdout=slave, stderr=PIPE) as process:
            _, said = process.communicate(timeout=COMMAND_SECONDS)
    finally:
        os.close(master)
        os.close(slave)

    assert process.returncode == 2
    assert b"terminal" in said


def test_a_place_where_no_platform_was_is_refused_and_stays_as_it_is(tmp_path: Path, other: Place) -> None:
    said = other.command("backup", str(tmp_path / "b.tar"))

    assert said.returncode == 1
    assert b"not the folder of a platform" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_files_are_read_where_they_lie_where_the_disk_has_no_links(
    sqlite_place: Place, sqlite_api: Api, other: Place, tmp_path: Path, small_disk: Path
) -> None:
    uid = finished_task(sqlite_api, make_zip())
    (sqlite_place.data_dir / BACKUP).symlink_to(small_disk)  # another file system: links cannot cross

    sqlite_place.back_up(tmp_path / "b.tar")
    other.restore(tmp_path / "b.tar")

    with running(other.settings) as restored:
        assert restored.poll(uid).status_code == 200


def test_memory_stays_flat_however_large_a_file_is(sqlite_place: Place, other: Place, tmp_path: Path) -> None:
    with running(sqlite_place.settings):
        pass
    small = _peak(sqlite_place, "backup", str(tmp_path / "small.tar"))
    with running(sqlite_place.settings) as api:
        finished_task(api, make_zip())
        name = next(name for name in sqlite_place.files() if name.startswith("outputs/"))
        with (sqlite_place.data_dir / name).open("wb") as file:
            file.truncate(500 * 2**20)
        zeros = hashlib.sha256()
        for _ in range(500):
            zeros.update(bytes(2**20))
        api.execute(f"UPDATE tasks SET output_size = {500 * 2**20}, output_sha256 = '{zeros.hexdigest()}'")

    made = _peak(sqlite_place, "backup", str(tmp_path / "b.tar"))
    verified = _peak(sqlite_place, "verify", str(tmp_path / "b.tar"))
    restored = _peak(other, "restore", str(tmp_path / "b.tar"))

    assert (other.data_dir / name).stat().st_size == 500 * 2**20
    assert max(made, verified, restored) - small < 32 * 2**20


_MEASURED = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Between us and the command: the kernel counts what a process held before its exec, and this one holds little."""


def _peak(place: Place, *arguments: str) -> int:
    """The most memory that the command held, in bytes."""
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURED, *COMMAND, *arguments],
        env=place.environment,
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=True,
    )
    return int(measured.stdout) * 1024


def test_a_backup_of_a_backup_reads_the_same(
    sqlite_place: Place, sqlite_api: Api, other: Place, tmp_path: Path
) -> None:
    finished_task(sqlite_api, make_zip())
    sqlite_place.back_up(tmp_path / "first.tar")
    other.restore(tmp_path / "first.tar")
    for number in "12":
        (tmp_path / number).mkdir()

    other.back_up(tmp_path / "second.tar")

    with (tmp_path / "first.tar").open("rb") as first, (tmp_path / "second.tar").open("rb") as second:
        before = read_backup(first, tmp_path / "1", keep=False).manifest
        after = read_backup(second, tmp_path / "2", keep=False).manifest
    assert after.model_dump(exclude={"created_at"}) == before.model_dump(exclude={"created_at"})

"""Children are started without secrets, found again by their records, and never taken for others."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from online_gateway.supervisor.child_process import (
    ChildProcess,
    ChildRecord,
    environment_for,
    read_records,
    write_records,
)
from tests.support.waiting import eventually

WAITS = [sys.executable, "-c", "import time\nwhile True: time.sleep(60)"]


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    started = ChildProcess.start(
        ChildRecord(f"echo-1-{os.urandom(4).hex()}", "echo"), WAITS, dict(os.environ), tmp_path
    )
    eventually(started.process.environ)  # the kernel shows it a moment after the start
    yield started
    started.kill()
    assert started.wait(30)


def test_a_child_is_found_by_its_record(child: ChildProcess) -> None:
    found = ChildProcess.find(child.record)

    assert found is not None
    assert found.record == child.record
    assert found.is_alive
    assert found.process.cwd() == child.process.cwd()


def test_a_child_whose_start_was_only_announced_is_found_by_its_id(child: ChildProcess) -> None:
    announced = ChildRecord(child.record.worker_id, "echo")

    found = ChildProcess.find(announced)

    assert found is not None
    assert found.record == child.record


@pytest.mark.parametrize("change", [{"worker_id": "echo-1-another"}, {"create_time": 1.0}])
def test_a_process_that_differs_from_the_record_is_not_taken(child: ChildProcess, change: dict[str, object]) -> None:
    assert ChildProcess.find(msgspec.structs.replace(child.record, **change)) is None


def test_a_dead_child_is_neither_found_nor_alive(child: ChildProcess) -> None:
    found = ChildProcess.find(child.record)
    assert found is not None

    child.kill()

    assert child.wait(30)
    assert child.exit_status == -9
    eventually(lambda: not found.is_alive)
    assert ChildProcess.find(child.record) is None
    found.kill()
    found.terminate()


def test_killing_a_child_ends_what_it_has_started_itself(tmp_path: Path) -> None:
    script = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\ntime.sleep(600)"
    child = ChildProcess.start(ChildRecord("a-1-x", "a"), [sys.executable, "-c", script], dict(os.environ), tmp_path)
    (grandchild,) = eventually(child.process.children)

    child.kill()

    assert child.wait(30)
    psutil.wait_procs([grandchild], timeout=30)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = [ChildRecord("a-1-x", "a", 4711, 12.5), ChildRecord("b-1-y", "b")]

    write_records(tmp_path / "records.json", records)

    assert read_records(tmp_path / "records.json") == records
    assert list(tmp_path.iterdir()) == [tmp_path / "records.json"]


@pytest.mark.parametrize("text", ["", "[{", '[{"worker_id": 5}]', "{}"])
def test_spoilt_records_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "records.json").write_text(text)

    assert read_records(tmp_path / "records.json") == []


def test_no_records_are_none(tmp_path: Path) -> None:
    assert read_records(tmp_path / "records.json") == []


def test_a_child_learns_no_setting_and_finds_our_packages_before_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "a-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    environment = environment_for(tmp_path)

    assert "a-secret" not in environment.values()
    assert "DATABASE_URL" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["PYTHONPATH"].split(os.pathsep)[-1] == str(tmp_path)

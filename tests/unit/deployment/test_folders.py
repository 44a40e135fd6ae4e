"""The folders of a host belong to those who write them."""

import os
import stat
from pathlib import Path

import pytest

from deployment.folders import BROKER_SETTINGS, FOLDERS, SERVICE_USER, main, make_folders, make_scratch

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving folders away takes root")


@needs_root
def test_the_services_folder_is_theirs_and_nobody_else_on_the_host_gets_in(tmp_path: Path) -> None:
    make_folders(tmp_path / "data")

    assert {path.name for path in (tmp_path / "data").iterdir()} == set(FOLDERS)
    assert (tmp_path / "data" / "files").stat().st_uid == SERVICE_USER
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


@needs_root
def test_what_holds_something_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "kept").touch()

    make_folders(tmp_path)

    assert (tmp_path / "files").stat().st_uid == 0


@needs_root
def test_an_empty_folder_that_the_engine_made_becomes_the_services(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()

    make_folders(tmp_path)

    assert (tmp_path / "files").stat().st_uid == SERVICE_USER


@needs_root
def test_a_consumer_that_is_not_root_gets_its_scratch_folder(tmp_path: Path) -> None:
    make_scratch(tmp_path / "scratch", "10001:999")

    assert (tmp_path / "scratch").stat().st_uid == 10001


def test_for_a_consumer_that_is_root_the_engine_makes_it(tmp_path: Path) -> None:
    make_scratch(tmp_path / "scratch", "0:0")

    assert not (tmp_path / "scratch").exists()


def test_the_broker_may_read_its_settings_whatever_the_umask_of_the_clone_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = broker_settings_in(tmp_path)
    settings.chmod(0o640)
    monkeypatch.chdir(tmp_path)

    assert main() == 0
    assert stat.S_IMODE(settings.stat().st_mode) == 0o644


def broker_settings_in(clone: Path) -> Path:
    settings = clone / BROKER_SETTINGS
    settings.parent.mkdir()
    settings.touch()
    return settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("DATA_DIR", "relative", "no absolute path"), ("CONSUMER_USER", "somebody", "write numbers")],
)
def test_a_mistake_is_said(
    name: str,
    value: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    broker_settings_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)

    assert main() == 1
    assert said in capsys.readouterr().err

"""The command ``infer`` against the real platform, as a person and as a script use it."""

import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models_examples.build import example_folders
from models_examples.check import check_output
from tests.support.hostile_models import HOSTILE_MODELS, zip_of
from tests.support.model_folders import make_sample
from tests.support.standalone import INFER, InferUp

Done = subprocess.CompletedProcess[str]


class Person:
    """Runs ``infer`` with a state folder of their own."""

    def __init__(self, url: str, home: Path) -> None:
        self._environment = {**os.environ, "INFER_URL": url, "XDG_STATE_HOME": str(home)}
        self._home = home

    def infer(self, *arguments: object) -> Done:
        command = [INFER, *map(str, arguments)]
        return subprocess.run(
            command, env=self._environment, cwd=self._home, capture_output=True, text=True, timeout=90, check=False
        )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, all_models_folder: Path) -> Iterator[InferUp]:
    options = ("--runner", "process", "--models", str(all_models_folder))
    with InferUp(tmp_path_factory.mktemp("up"), *options) as running:
        yield running


@pytest.fixture
def person(up: InferUp, tmp_path: Path) -> Person:
    return Person(up.url, tmp_path)


def test_a_model_folder_is_registered_run_and_removed(person: Person, tmp_path: Path) -> None:
    folder = example_folders()["ct_body_mask"]
    sample = make_sample(folder, tmp_path / "sample.zip")

    added = person.infer("models", "add", folder)
    ran = person.infer("run", "ct-body-mask", sample, "-o", tmp_path / "out.zip")
    listed = person.infer("tasks", "list")
    removed = person.infer("models", "remove", "ct-body-mask")

    assert (added.returncode, ran.returncode, removed.returncode) == (0, 0, 0), ran.stderr
    assert check_output(folder, sample, tmp_path / "out.zip") == []
    assert "finished" in listed.stdout


def test_files_and_folders_are_packed_and_the_output_unpacked(person: Person, tmp_path: Path) -> None:
    person.infer("models", "add", HOSTILE_MODELS / "echo_tree")
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file.bin").write_bytes(b"\x00\x01")

    done = person.infer("run", "test-echo-tree", source, "-o", tmp_path / "result")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result" / "deep" / "er" / "file.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "result" / "empty").is_dir()


def test_json_is_one_object_and_nothing_else(person: Person, tmp_path: Path) -> None:
    person.infer("models", "add", HOSTILE_MODELS / "echo_tree")
    (tmp_path / "a.txt").write_text("content")

    done = person.infer("run", "test-echo-tree", tmp_path / "a.txt", "-o", tmp_path / "out.zip", "--json")

    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == ["a.txt"]


def test_a_failed_task_exits_with_1_and_shows_the_log(person: Person, tmp_path: Path) -> None:
    person.infer("models", "add", HOSTILE_MODELS / "fails")

    done = person.infer("run", "test-fails", zip_of(tmp_path / "in.zip", {"a": "b"}), "-o", tmp_path / "out.zip")

    assert done.returncode == 1
    assert "exit code 3" in done.stderr
    assert "the weights are broken" in done.stderr
    assert not (tmp_path / "out.zip").exists()


def test_a_detached_task_can_be_cancelled_by_a_part_of_its_uid(person: Person, tmp_path: Path) -> None:
    person.infer("models", "add", HOSTILE_MODELS / "sleeps")
    sent = zip_of(tmp_path / "in.zip", {"a": "b"})

    uid = json.loads(person.infer("run", "test-sleeps", sent, "--detach", "--json").stdout)["uid"]
    cancelled = person.infer("tasks", "cancel", "--", uid[:8])
    status = person.infer("tasks", "status", "--json", "--", uid)

    assert cancelled.returncode == 0, cancelled.stderr
    assert json.loads(status.stdout)["status"]["state"] == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("run", "no-such-model", "in.zip"), 4),
        (("run", "test-echo-tree", "no-such-file"), 2),
        (("tasks", "status", "nobody-knows-this-uid"), 4),
        (("--url", "http://127.0.0.1:9", "models", "list"), 3),
    ],
)
def test_the_exit_code_tells_what_went_wrong(
    person: Person, tmp_path: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    zip_of(tmp_path / "in.zip", {"a": "b"})

    done = person.infer(*arguments)

    assert done.returncode == exit_code, done.stderr
    assert done.stderr.startswith("infer: ")
    assert "Traceback" not in done.stderr

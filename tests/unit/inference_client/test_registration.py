"""A model folder, options, or both, as one registration."""

from pathlib import Path

import pytest

from contracts.model_file import ModelFile
from contracts.models import RequestedLimits
from inference_client.cli.registration import with_options
from inference_client.errors import InputRefused
from inference_client.model_calls import Mountpoints, Registration
from inference_client.model_folder import made_content, of_folder

MODEL_TOML = """
human_readable_id = "segment-ct"
container_tag = "segment-ct:3"
description = "Segments."
gpu = true
command = ["python", "run.py"]
output_mountpoint = "/results"

[limits]
memory_bytes = 1073741824
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.toml").write_text(MODEL_TOML)
    return tmp_path


def test_a_folder_is_registered_as_its_file_says(folder: Path) -> None:
    registration = of_folder(ModelFile.load(folder))

    assert registration == Registration(
        human_readable_id="segment-ct",
        container_tag="segment-ct:3",
        description="Segments.",
        use_gpu=True,
        limits=RequestedLimits(memory_bytes=2**30),
        mountpoints=Mountpoints(output="/results"),
    )


def test_an_option_stands_above_the_folder_and_leaves_the_rest(folder: Path) -> None:
    given = {"container_tag": "segment-ct:4", "use_gpu": False, "cpus": 2.0, "model_mountpoint": "/weights"}

    registration = with_options(of_folder(ModelFile.load(folder)), given)

    assert registration.container_tag == "segment-ct:4"
    assert not registration.use_gpu
    assert registration.limits == RequestedLimits(memory_bytes=2**30, cpus=2.0)
    assert registration.mountpoints == Mountpoints(output="/results", model="/weights")
    assert registration.description == "Segments."


def test_a_limit_out_of_range_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(InputRefused, match="memory_bytes"):
        with_options(of_folder(ModelFile.load(folder)), {"memory_bytes": 1})


def test_the_wire_gets_only_the_limits_that_were_asked_for() -> None:
    limits = RequestedLimits(timeout_seconds=7200, capabilities=("SYS_PTRACE", "IPC_LOCK"))

    query = Registration("id", "tag", use_gpu=True, limits=limits).as_query()

    assert query["timeout_seconds"] == "7200.0"
    assert query["capabilities"] == ["SYS_PTRACE", "IPC_LOCK"]
    assert (query["use_gpu"], query["model_available"]) == ("True", "False")
    assert "memory_bytes" not in query
    assert "description" not in query


def test_the_content_script_is_run_in_its_folder_with_the_path_of_the_zip(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("weights")
    (tmp_path / "content.py").write_text(
        "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as z: z.write('weights.txt')\nprint('noise')"
    )

    with made_content(tmp_path, "content.py") as content:
        assert content is not None
        assert b"weights" in content.read_bytes()

    assert not content.exists()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [("raise SystemExit('the weights are missing')", "exit code 1: the weights are missing"), ("", "wrote no zip")],
)
def test_a_content_script_that_fails_or_writes_nothing_is_told(tmp_path: Path, script: str, sentence: str) -> None:
    (tmp_path / "content.py").write_text(script)

    with pytest.raises(InputRefused, match=sentence), made_content(tmp_path, "content.py"):
        pass


def test_without_a_script_there_is_no_content(tmp_path: Path) -> None:
    with made_content(tmp_path, None) as content:
        assert content is None

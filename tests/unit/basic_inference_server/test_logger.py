"""The Logger of start scripts, support processes and endpoints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from basic_inference_server import Logger


def test_the_applications_folder_is_made_in_the_base_folder(tmp_path: Path) -> None:
    log = Logger(lib_name="APP", base_folder=str(tmp_path), app_folder="_cache", TF_KERAS=False, max_lines=3000)

    assert log.base_folder == tmp_path / "_cache"
    assert log.base_folder.is_dir()


def test_a_logger_that_names_no_folder_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    Logger(lib_name="APP")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [".", "base", "base/app"])
def test_the_configuration_is_found_where_the_script_runs_then_in_its_folders(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "config_gateway.txt").write_text('{"SERVER_NAME": "found"}')

    log = Logger(lib_name="APP", config_file="config_gateway.txt", base_folder="base", app_folder="app")

    assert log.config_data == {"SERVER_NAME": "found"}


def test_a_missing_configuration_is_told_with_the_places_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"app/config_gateway\.txt"):
        Logger(lib_name="APP", config_file="config_gateway.txt", base_folder=tmp_path, app_folder="app")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_configuration_that_is_no_json_object_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.txt").write_text(text)

    with pytest.raises(ValueError, match=r"config\.txt"):
        Logger(lib_name="APP", config_file=str(tmp_path / "config.txt"))


def test_new_configuration_goes_on_top_of_what_is_there() -> None:
    log = Logger(lib_name="APP")
    log.update_config_data({"A": 1, "B": 1})

    log.update_config_data({"B": 2})

    assert log.config_data == {"A": 1, "B": 2}


def test_lines_are_written_to_stderr_with_their_level_and_without_further_set_up() -> None:
    script = """
from basic_inference_server import Logger
log = Logger(lib_name="APP")
log.P("an emphasis", color="r")
log.P({"not": "a text"}, color="e")
"""

    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["by"], line["level"], line["text"]) for line in lines] == [
        ("APP", "info", "an emphasis"),
        ("APP", "error", "{'not': 'a text'}"),
    ]
    assert ran.stdout == ""

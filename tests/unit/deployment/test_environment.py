"""The .env file is read as compose reads it."""

from pathlib import Path

import pytest

from deployment.environment import deployment_environment, read_assignments


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("export NAME=plain", "plain"),
        ("NAME='single # quoted'", "single # quoted"),
        ('NAME="double" # comment', "double"),
        ("NAME=bare # comment", "bare"),
        ("NAME=with#hash", "with#hash"),
        ("# NAME=commented", None),
        ("NAME=", ""),
    ],
)
def test_a_line(line: str, value: str | None) -> None:
    assert read_assignments(line).get("NAME") == value


def test_the_environment_comes_before_the_file_and_empty_means_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("ONE_OF_FILE=file\nOTHER_OF_FILE=file\nEMPTY_OF_FILE=\n")
    monkeypatch.setenv("OTHER_OF_FILE", "environment")

    found = deployment_environment(tmp_path / ".env")

    assert found["ONE_OF_FILE"] == "file"
    assert found["OTHER_OF_FILE"] == "environment"
    assert "EMPTY_OF_FILE" not in found

"""The command tree: quick, quiet, and open to other packages."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from inference_client import cli
from inference_client.cli import application

HEAVY = ("httpx", "rich", "pydantic", "inference_client.client")


def test_help_imports_nothing_that_only_a_command_needs() -> None:
    script = (
        "import sys; from inference_client.cli import main; main(['--help'])\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert "run     Send files to a model" in done.stdout


def test_a_command_of_another_package_is_listed_without_being_imported_and_run_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = application.ENTRY_POINT_GROUP
    points = (
        EntryPoint("good", "tests.unit.inference_client.added_command:good", group),
        EntryPoint("gone", "no_such_package:command", group),
        EntryPoint("wrong", "tests.unit.inference_client.added_command:wrong", group),
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: points)
    sys.modules.pop("tests.unit.inference_client.added_command", None)

    assert cli.main(["--help"]) == 0

    assert "From no_such_package; see 'infer gone --help'." in capsys.readouterr().out
    assert "tests.unit.inference_client.added_command" not in sys.modules
    assert cli.main(["good", "--name", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    assert cli.main(["gone"]) == 2
    assert "cannot be loaded from no_such_package" in capsys.readouterr().err
    assert cli.main(["wrong"]) == 2
    assert "is no click.Command" in capsys.readouterr().err


def test_a_wrong_command_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rum"]) == 2

    err = capsys.readouterr().err
    assert err == "infer: No such command 'rum'. Try 'infer --help'.\n"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0

    assert capsys.readouterr().out.startswith("infer 0.")

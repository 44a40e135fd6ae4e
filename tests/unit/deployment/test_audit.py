"""An audit that checked nothing does not pass."""

import json
from pathlib import Path

import pytest

from deployment.audit import CLEAN, NOT_CHECKED, VULNERABLE, main

GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "GHSA-1", "fix_versions": ["3", "2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


def pip_audit(folder: Path, *packages: object, says: str | None = None) -> str:
    """A program that reports like pip-audit does."""
    report = json.dumps({"dependencies": packages, "fixes": []}) if says is None else says
    path = folder / "pip-audit"
    path.write_text(f"#!/bin/sh\necho 'no route to host' >&2\ncat <<'END'\n{report}\nEND\n")
    path.chmod(0o755)
    return str(path)


def test_pins_without_a_known_vulnerability_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([pip_audit(tmp_path, GOOD)]) == CLEAN
    assert capsys.readouterr().out == "1 pins, no known vulnerability\n"


def test_a_vulnerability_is_named_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([pip_audit(tmp_path, GOOD, BAD, UNKNOWN)]) == VULNERABLE
    assert capsys.readouterr().err == "bad 2: GHSA-1, fixed in 3, 2.1\n"


def test_a_pin_that_the_service_does_not_know_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([pip_audit(tmp_path, GOOD, UNKNOWN)]) == NOT_CHECKED
    assert "1 of 2 pins were not checked" in capsys.readouterr().err


def test_no_pins_at_all_do_not_pass(tmp_path: Path) -> None:
    assert main([pip_audit(tmp_path)]) == NOT_CHECKED


@pytest.mark.parametrize("report", ["", "[]", '{"dependencies": [{}]}', "{}"])
def test_no_report_does_not_pass(tmp_path: Path, report: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([pip_audit(tmp_path, says=report)]) == NOT_CHECKED
    assert "nothing was checked, the vulnerability service was not reached: no route to host" in capsys.readouterr().err


def test_a_missing_program_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing")]) == NOT_CHECKED
    assert "nothing was checked" in capsys.readouterr().err

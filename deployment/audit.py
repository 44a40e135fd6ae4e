"""Asks a vulnerability service about every pinned package: ``python -m deployment.audit PIP_AUDIT [--service osv]``.

``pip-audit`` by itself ends well when the service knows none of the packages, as behind a mirror that answers for it.
Here a pin that was not checked is a failure: silence proves nothing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployment.image_names import ROOT

AUDIT_SECONDS = 900
CLEAN, VULNERABLE, NOT_CHECKED = 0, 1, 2
"""Exit statuses."""


@dataclass(frozen=True)
class Findings:
    """What the service said."""

    checked: int
    unchecked: Sequence[str]
    vulnerabilities: Sequence[str]

    @classmethod
    def from_report(cls, text: str) -> "Findings":
        """Read pip-audit's JSON report.

        Raises
        ------
        ValueError, KeyError, TypeError
            It is none.
        """
        packages = json.loads(text)["dependencies"]
        checked = [package for package in packages if "skip_reason" not in package]
        return cls(
            checked=len(checked),
            unchecked=[package["name"] for package in packages if "skip_reason" in package],
            vulnerabilities=[
                f"{package['name']} {package['version']}: {found['id']}, fixed in {_versions(found['fix_versions'])}"
                for package in checked
                for found in package["vulns"]
            ],
        )


def _versions(versions: Sequence[str]) -> str:
    return ", ".join(versions) or "no version yet"


def pinned_files() -> list[Path]:
    """Every file of the repository that pins packages: the services', and each example model's."""
    return [ROOT / "constraints.txt", *sorted((ROOT / "models_examples").glob("*/requirements.txt"))]


def judge(findings: Findings) -> tuple[int, str]:
    """Exit status and the lines to print."""
    if findings.vulnerabilities:
        return VULNERABLE, "\n".join(findings.vulnerabilities)
    if findings.unchecked or not findings.checked:
        pins = findings.checked + len(findings.unchecked)
        return NOT_CHECKED, (
            f"{len(findings.unchecked)} of {pins} pins were not checked: the vulnerability service is away, "
            f"or does not know them: {', '.join(findings.unchecked)}"
        )
    return CLEAN, f"{findings.checked} pins, no known vulnerability"


def _judge_report(report: str, complaints: str) -> tuple[int, str]:
    try:
        return judge(Findings.from_report(report))
    except (ValueError, KeyError, TypeError):
        last = (complaints.strip().splitlines() or ["no reason given"])[-1]
        return NOT_CHECKED, f"nothing was checked, the vulnerability service was not reached: {last}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found; 0 only where every pin was checked and none is known to be vulnerable."""
    parser = argparse.ArgumentParser(prog="python -m deployment.audit", description="Look for known vulnerabilities.")
    parser.add_argument("pip_audit", metavar="PIP_AUDIT", help="the pip-audit command")
    parser.add_argument("--service", default="pypi", choices=["pypi", "osv"], help="whom to ask (default: pypi)")
    options = parser.parse_args(arguments)
    files = [word for path in pinned_files() for word in ("--requirement", str(path))]
    fixed = [
        "--no-deps",
        "--disable-pip",
        "--progress-spinner=off",
        "--format=json",
        f"--vulnerability-service={options.service}",
    ]
    try:
        done = subprocess.run(
            [options.pip_audit, *fixed, *files], capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        status, sentence = NOT_CHECKED, f"nothing was checked: {error}"
    else:
        status, sentence = _judge_report(done.stdout, done.stderr)
    print(sentence, file=sys.stdout if status == CLEAN else sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

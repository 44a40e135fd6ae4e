"""What a deployment makes in its clone never gets into git: secrets, keys, passwords, and backups with everybody's data."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deployment.secrets import make_secrets
from tests.architecture.sources import ROOT

GIT_SECONDS = 30
KEPT_FILES = (".gitignore", "traefik/certs/.gitignore")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """An empty repository with this one's rules."""
    for name in KEPT_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git(tmp_path, "init", "--quiet")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout


def test_git_sees_nothing_of_what_a_deployment_makes(clone: Path) -> None:
    make_secrets(clone / "secrets", {})
    certificates = ("certs/ca.crt", "certs/server.crt", "certs/server.key", "certs-authority/ca.key")
    made = [".env", "backup.tar", "backup.tar.part", "images.tar", "client/bin/infer", "out.zip"]
    for name in [*made, *(f"traefik/{name}" for name in certificates)]:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()

    seen = git(clone, "ls-files", "--others", "--exclude-standard").split()

    assert sorted(seen) == sorted(KEPT_FILES)

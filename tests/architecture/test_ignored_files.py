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
    made = ("ca.crt", "ca.key", "server.crt", "server.key")
    for name in (".env", "backup.tar", "backup.tar.part", "images.tar", "client/bin/infer", "out.zip"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    for name in made:
        (clone / "traefik" / "certs" / name).touch()

    seen = git(clone, "ls-files", "--others", "--exclude-standard").split()

    assert sorted(seen) == sorted(KEPT_FILES)

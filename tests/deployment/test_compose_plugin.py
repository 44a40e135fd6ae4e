"""The compose plugin, fetched from the mirror that this machine's apt is configured with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployment import compose_plugin
from tests.support.requirements import missing


def answer(docker_config: Path, *command: str) -> str:
    """What docker answers whose plugins are in that folder alone of this user's."""
    environment = {**os.environ, "DOCKER_CONFIG": str(docker_config)}
    return subprocess.run(
        ["docker", *command], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker configuration folder with the plugins."""
    folder = tmp_path_factory.mktemp("docker-config")
    try:
        compose_plugin.install_plugins(folder / "cli-plugins")
    except compose_plugin.PluginUnavailable as error:
        missing(f"no compose plugin: {error}")
    return folder


def test_the_fetched_plugins_are_new_enough_and_work(fetched: Path) -> None:
    assert sorted(path.name for path in (fetched / "cli-plugins").iterdir()) == ["docker-buildx", "docker-compose"]
    assert compose_plugin.is_recent(answer(fetched, "compose", "version", "--short"))
    assert "buildx" in answer(fetched, "buildx", "version")


def test_where_compose_is_new_enough_nothing_is_touched(fetched: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in fetched.rglob("*")}

    done = subprocess.run(
        [sys.executable, "-m", "deployment.compose_plugin"],
        env={**os.environ, "DOCKER_CONFIG": str(fetched)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("docker compose 2.")
    assert {path: path.stat().st_mtime_ns for path in fetched.rglob("*")} == before


def test_without_a_docker_command_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployment.compose_plugin"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "there is no docker command; run: apt-get install docker.io\n"

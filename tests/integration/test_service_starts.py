"""A service that cannot run as it is configured ends at once, with status 2 and one line that names the culprit."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

START_SECONDS = 60
TOKEN = "0123456789abcdef"


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield str(other.getsockname()[1])


def refusal(service: str, **environment: str) -> str:
    """Starts the service, which must refuse; what it said."""
    base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-m", service],
        env={**base, "INTERNAL_TOKEN": TOKEN, **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_public_api_names_the_address_that_it_cannot_listen_on(taken_port: str) -> None:
    said = refusal("public_api", PRIVATE_API_URL="http://127.0.0.1:1", PORT=taken_port)

    assert f"127.0.0.1:{taken_port}" in said
    assert "Address already in use" in said


def test_private_api_names_the_address_that_it_cannot_listen_on(taken_port: str, tmp_path: Path) -> None:
    said = refusal(
        "private_api", DATABASE_URL=f"sqlite:///{tmp_path}/a.db", DATA_DIR=str(tmp_path / "data"), PORT=taken_port
    )

    assert f"127.0.0.1:{taken_port}" in said
    assert "Address already in use" in said


@pytest.mark.parametrize("url", ["postgresql://user:hush@127.0.0.1:port/name", "sqlite://", "sqlite:///:memory:"])
def test_private_api_refuses_a_database_that_it_cannot_use(tmp_path: Path, url: str) -> None:
    said = refusal("private_api", DATABASE_URL=url, DATA_DIR=str(tmp_path / "data"), PORT="0")

    assert "DATABASE_URL" in said
    assert "hush" not in said


def test_a_consumer_names_the_scratch_folder_that_it_cannot_make() -> None:
    said = refusal("job_consumer", PRIVATE_API_URL="http://127.0.0.1:1", SCRATCH_DIR="/proc/scratch")

    assert "SCRATCH_DIR: /proc/scratch" in said


@pytest.mark.parametrize("environment", [{}, {"MODELS_FOLDER": "/nowhere"}])
def test_a_consumer_of_processes_needs_its_models_before_it_asks_for_tasks(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    said = refusal(
        "job_consumer",
        PRIVATE_API_URL="http://127.0.0.1:1",
        SCRATCH_DIR=str(tmp_path),
        RUNNER="process",
        **environment,
    )

    assert "MODELS_FOLDER" in said


def test_a_consumer_whose_card_is_named_twice_refuses(tmp_path: Path) -> None:
    said = refusal(
        "job_consumer",
        PRIVATE_API_URL="http://127.0.0.1:1",
        SCRATCH_DIR=str(tmp_path),
        GPU_UUID="GPU-0",
        GPU_INDEX="0",
    )

    assert "GPU_UUID" in said
    assert "GPU_INDEX" in said

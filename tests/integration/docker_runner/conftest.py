from pathlib import Path

import pytest

from job_consumer.runner.docker import DockerRunner
from tests.support.docker_engine import MakeDockerRunner


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def runner(make_docker_runner: MakeDockerRunner, scratch: Path) -> DockerRunner:
    return make_docker_runner(scratch)

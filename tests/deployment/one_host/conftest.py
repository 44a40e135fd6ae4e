"""One deployment for the tests of this package; it is taken down, with its data, when they are over."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing

import docker
import pytest

from tests.support.docker_engine import engine_socket
from tests.support.requirements import missing
from tests.support.stack import PAGE, Deployment, copy_of_the_repository


@pytest.fixture(scope="package")
def deployment(docker_engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The deployed stack: whoever changes its settings changes them back."""
    _check_machine(docker_engine)
    folder = tmp_path_factory.mktemp("deployment")
    copy_of_the_repository(folder / "clone")
    project = f"inference-test-{secrets.token_hex(3)}"
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": project,
        "DOCKER_SOCKET": str(engine_socket()),
        "SCRATCH_DIR": str(folder / "scratch"),
    }
    made = Deployment(folder / "clone", environment)
    try:
        made.follow(PAGE)
        yield made
    finally:
        made.close()


def _check_machine(engine: docker.DockerClient) -> None:
    if os.geteuid() != 0:
        missing("the page is followed as root")
    if engine_socket() is None:
        missing("the engine is on another machine")
    if not engine.ping():
        missing("no Docker engine answers")
    for port in (80, 443):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                missing(f"port {port} is taken, and the page uses it")

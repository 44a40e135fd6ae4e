"""The drop-in base images on the session's engine, and containers of them that are gone when their test is."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest
from docker.models.containers import Container

from deployment.base_images import BaseImageError, postgres, rabbitmq, traefik
from tests.support.requirements import missing
from tests.support.waiting import eventually

SERVER_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
"""All that the database and the broker are left with in a deployment."""

STOP_SECONDS = 30
"""Longer than any of them takes in order; whoever needs it all is killed, and its exit status tells."""


class StartContainer(Protocol):
    """Starts a container of an image with the rights that it has in a deployment; more as docker's own arguments."""

    def __call__(self, image: str, command: list[str] | None = None, **more: Any) -> Container: ...


@pytest.fixture(scope="session")
def postgres_image(image_engine: docker.DockerClient) -> str:
    """Tag of the database's drop-in image."""
    return _made(functools.partial(postgres.ensure, image_engine))


@pytest.fixture(scope="session")
def rabbitmq_image(image_engine: docker.DockerClient) -> str:
    """Tag of the broker's drop-in image."""
    return _made(functools.partial(rabbitmq.ensure, image_engine))


@pytest.fixture(scope="session")
def traefik_image(image_engine: docker.DockerClient) -> str:
    """Tag of the reverse proxy's drop-in image."""
    return _made(functools.partial(traefik.ensure, image_engine))


@pytest.fixture
def start_container(image_engine: docker.DockerClient) -> Iterator[StartContainer]:
    """Starts containers; with their volumes they are gone after the test."""
    with containers_of(image_engine) as start:
        yield start


@contextmanager
def containers_of(engine: docker.DockerClient) -> Iterator[StartContainer]:
    """Starts containers on the engine, and removes them at the end."""
    started: list[Container] = []

    def start(image: str, command: list[str] | None = None, **more: Any) -> Container:
        rights = {"cap_drop": ["ALL"], "cap_add": list(SERVER_CAPABILITIES), "security_opt": ["no-new-privileges:true"]}
        started.append(engine.containers.create(image, command, **(rights | more)))
        started[-1].start()
        return started[-1]

    try:
        yield start
    finally:
        for container in started:
            container.remove(force=True, v=True)


def read_only(path: Path, inside: str) -> dict[str, dict[str, str]]:
    """The ``volumes`` argument for one file, which every user of the container may read."""
    path.chmod(0o444)
    return {str(path): {"bind": inside, "mode": "ro"}}


def address_of(container: Container, port: int) -> tuple[str, int]:
    """Where a published port is reached on this host, now: a restart may move it."""
    container.reload()
    found = container.ports[f"{port}/tcp"][0]
    return found["HostIp"], int(found["HostPort"])


def run_in(container: Container, *command: str, user: str = "") -> str:
    """What a command in the container printed; fails the test when it failed."""
    status, output = container.exec_run(list(command), user=user)
    assert status == 0, output.decode(errors="replace")
    return str(output.decode()).strip()


def ended(container: Container, within: float = 60) -> tuple[int, str]:
    """Exit status and log of a container that ends by itself."""
    status = container.wait(timeout=within)["StatusCode"]
    return int(status), log_of(container)


def log_of(container: Container) -> str:
    """All that the container's processes have printed, over its restarts."""
    return str(container.logs().decode(errors="replace"))


def wait_for_log(container: Container, words: str, within: float = 60) -> None:
    """Return when the words are in the container's log."""
    eventually(lambda: words in log_of(container), within=within)


def _made(make: Callable[[], str]) -> str:
    try:
        return make()
    except BaseImageError as error:
        missing(f"no base image: {error}")

"""Images for tests, built on this machine: the Python base and the example models; no registry is asked."""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing

import docker
import pytest

from deployment.wheels import DownloadError
from models_examples.build import build_image, folder_of, offline_base
from deployment.base_images import BaseImageError
from tests.support.requirements import missing

_BUILD_SECONDS = 900


@pytest.fixture(scope="session")
def image_engine(docker_engine: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """The session's Docker engine, with the patience that builds need."""
    with closing(docker.from_env(timeout=_BUILD_SECONDS)) as engine:
        yield engine


@pytest.fixture(scope="session")
def python_base_image(image_engine: docker.DockerClient) -> str:
    """Tag of a Debian image with python, venv and pip."""
    try:
        return str(offline_base(image_engine).python_image)
    except BaseImageError as error:
        missing(f"no Python base image: {error}")


@pytest.fixture(scope="session")
def example_image(image_engine: docker.DockerClient, python_base_image: str) -> Callable[[str], str]:
    """Builds the image of an example model, once per session: ``example_image("pass_through")`` is its tag."""

    @functools.cache
    def build(name: str) -> str:
        try:
            return build_image(image_engine, folder_of(name), offline_base(image_engine))
        except DownloadError as error:
            missing(f"no wheels for {name}: {error}")

    return build

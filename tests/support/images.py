"""Images for tests, built on this machine: the Python base, the services and the example models; no registry is asked."""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing

import docker
import pytest

from deployment.base_images import BaseImageError, python
from deployment.image_names import service_tag
from deployment.service_images import ServiceBuild, build_service
from deployment.variables import VARIABLES
from deployment.wheels import DownloadError
from models_examples.build import build_image, folder_of, offline_base
from tests.support.requirements import missing

TEST_IMAGES = "inference-server-test"
"""``IMAGES`` of tests: their images of services leave alone those that a person has built on the same engine."""

TEST_REVISION = "revision-of-a-test"
"""Fixed, so that a commit alone builds nothing anew."""

VERSION = next(variable.default for variable in VARIABLES if variable.name == "VERSION")

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


def offline_service_build(python_base_image: str, revision: str = TEST_REVISION) -> ServiceBuild:
    """How tests build services: of wheels, without a network."""
    return ServiceBuild(python_base_image, VERSION, revision, wheels_for_python=python.PYTHON_VERSION)


@pytest.fixture(scope="session")
def service_image(image_engine: docker.DockerClient, python_base_image: str) -> Callable[[str], str]:
    """Builds the image of a service unless it is there as the sources are now: ``service_image("public_api")`` is its tag."""

    @functools.cache
    def build(name: str) -> str:
        tag = service_tag(name, {"IMAGES": TEST_IMAGES})
        try:
            build_service(image_engine, name, tag, offline_service_build(python_base_image))
        except DownloadError as error:
            missing(f"no wheels for {name}: {error}")
        return tag

    return build

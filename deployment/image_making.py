"""Makes the images of a deployment on one engine, from registries or without them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import docker
from docker.errors import DockerException

from deployment.base_images import DEFAULT_MIRRORS, BaseImageError, Mirrors, postgres, python, rabbitmq, traefik
from deployment.building import ImageBuildFailed, SiteCaError, engine_at, image_id, no_engine, site_ca
from deployment.image_names import EXTERNALS, SERVICES, service_tag, version
from deployment.requirements import UnknownRequirement
from deployment.service_images import ServiceBuild, build_service, git_revision
from deployment.wheels import DownloadError
from models_examples.build import build_image, example_folders, offline_base

log = logging.getLogger(__name__)

_INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


class MakingFailed(Exception):
    """Not all images were made; the message says why and what to do."""


def make_online(
    address: str | None, environment: Mapping[str, str], services: Sequence[str], *, rebuild: bool = False
) -> list[str]:
    """Build images of services on PYTHON_IMAGE, which the engine pulls where it lacks it; the tags.

    Raises
    ------
    MakingFailed
        See the class.
    """
    with _plain_errors(), engine_at(address) as engine:
        base = next(external for external in EXTERNALS if external.variable == "PYTHON_IMAGE").chosen(environment)
        how = ServiceBuild(
            base,
            version(environment),
            git_revision(),
            certificates=site_ca(environment),
            index_arguments={name: environment[name] for name in _INDEX_VARIABLES if environment.get(name)},
        )
        try:
            return _services(engine, environment, services, how, rebuild=rebuild)
        except ImageBuildFailed as error:
            if image_id(engine, base) is not None:
                raise
            raise MakingFailed(
                f"{error}\n{base} is not on this engine, and no registry gave it; where none is reached, "
                "run `make images-offline`."
            ) from error


def make_offline(
    address: str | None, environment: Mapping[str, str], *, rebuild: bool = False, mirrors: Mirrors = DEFAULT_MIRRORS
) -> list[str]:
    """Make base images, services and examples of Debian packages and wheels, without a registry; the tags.

    Raises
    ------
    MakingFailed
        See the class.
    """
    with _plain_errors(), engine_at(address) as engine:
        tags = [
            module.ensure(engine, rebuild=rebuild, mirrors=mirrors) for module in (python, traefik, postgres, rabbitmq)
        ]
        how = ServiceBuild(python.TAG, version(environment), git_revision(), wheels_for_python=python.PYTHON_VERSION)
        tags += _services(engine, environment, SERVICES, how, rebuild=rebuild)
        base = offline_base(engine)
        for folder in example_folders().values():
            log.info("building %s", folder.name)
            tags.append(build_image(engine, folder, base))
        return tags


def _services(
    engine: docker.DockerClient,
    environment: Mapping[str, str],
    services: Sequence[str],
    how: ServiceBuild,
    *,
    rebuild: bool,
) -> list[str]:
    tags = []
    for service in services:
        tags.append(service_tag(service, environment))
        if not build_service(engine, service, tags[-1], how, rebuild=rebuild):
            log.info("%s is up to date", tags[-1])
    return tags


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (BaseImageError, DownloadError, ImageBuildFailed, SiteCaError, UnknownRequirement) as error:
        raise MakingFailed(str(error)) from error
    except DockerException as error:
        raise MakingFailed(no_engine(error)) from error

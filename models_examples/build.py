"""Builds the images of the example models: ``python -m models_examples.build [--offline] [NAME ...]``.

``--offline`` needs neither a registry nor a network inside the build: the Python base image is made by debootstrap, and
the wheels are downloaded by this machine's own pip beforehand. Without it, the certificates that this machine's pip
trusts (``SITE_CA``, ``PIP_CERT`` or ``SSL_CERT_FILE``) are lent to the build and do not stay in the image.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from contracts.errors import InvalidRequest
from contracts.model_file import MODEL_FILE, ModelFile
from deployment.base_images import DEFAULT_MIRRORS, BaseImageError, Mirrors, python
from deployment.building import ImageBuildFailed, SiteCaError, build, engine_at, no_engine, trusted_certificates
from deployment.wheels import DownloadError, wheels_for

log = logging.getLogger(__name__)

ROOT = Path(__file__).parent
_WHEELS = "wheels"
_CA_BUNDLE = "extra-ca.pem"
_SCRATCH_IN_BUILD = "/build"
"""Where the Dockerfiles copy requirements, wheels and the CA bundle to, in a stage that is thrown away."""


@dataclass(frozen=True)
class Base:
    """What the images stand on. ``python_image`` None takes the Dockerfile's own default from its registry."""

    python_image: str | None = None
    wheels_for_python: str | None = None
    """A Python version such as '3.11': install from downloaded wheels, without a network. None: pip asks its index."""


def example_folders() -> dict[str, Path]:
    """The model folders beside this file, by name."""
    return {path.parent.name: path.parent for path in sorted(ROOT.glob(f"*/{MODEL_FILE}"))}


def folder_of(name: str) -> Path:
    """The model folder of this name, or of this human readable id.

    Raises
    ------
    InvalidRequest
        There is no such example.
    """
    folders = example_folders()
    for folder_name, folder in folders.items():
        if name in (folder_name, ModelFile.load(folder).human_readable_id):
            return folder
    raise InvalidRequest(f"There is no example {name!r}; there are: {', '.join(folders)}.")


def offline_base(engine: docker.DockerClient, *, rebuild: bool = False, mirrors: Mirrors = DEFAULT_MIRRORS) -> Base:
    """The base for builds without registry and network, made when it is not there yet.

    Raises
    ------
    BaseImageError
        See :func:`deployment.base_images.python.ensure`.
    """
    return Base(python.ensure(engine, rebuild=rebuild, mirrors=mirrors), python.PYTHON_VERSION)


def build_image(engine: docker.DockerClient, folder: Path, base: Base) -> str:
    """Build one model folder's image under the tag that its ``model.toml`` names; the tag.

    Raises
    ------
    ImageBuildFailed
        The Dockerfile failed or the engine refused.
    DownloadError
        The wheels for a build without a network could not be had.
    SiteCaError
        The site's certificates, for a build with a network, could not be read.
    """
    tag = ModelFile.load(folder).container_tag
    architecture = str(engine.info()["Architecture"])
    with _context(folder, base, architecture) as (context, arguments):
        build(engine, context, tag, arguments, network="none" if base.wheels_for_python else None)
    return tag


@contextmanager
def _context(folder: Path, base: Base, architecture: str) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """A copy of the folder with what the build borrows, and the build arguments that say so."""
    arguments: dict[str, str] = {}
    if base.python_image:
        arguments["PYTHON_IMAGE"] = base.python_image
    requirements = folder / "requirements.txt"
    with tempfile.TemporaryDirectory(prefix="build-context-") as scratch:
        context = Path(scratch) / folder.name
        shutil.copytree(folder, context, ignore=shutil.ignore_patterns("__pycache__"))
        if base.wheels_for_python and requirements.is_file():
            shutil.copytree(wheels_for(requirements, base.wheels_for_python, architecture), context / _WHEELS)
            arguments |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": _SCRATCH_IN_BUILD}
        elif requirements.is_file() and (certificates := trusted_certificates()):
            (context / _CA_BUNDLE).write_text(certificates, encoding="utf-8")
            arguments["PIP_CERT"] = f"{_SCRATCH_IN_BUILD}/{_CA_BUNDLE}"
        yield context, arguments


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models_examples.build", description="Build the example images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples to build (default: all)")
    parser.add_argument("--engine", metavar="URL", help="Docker engine (default: DOCKER_HOST or the local socket)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--offline", action="store_true", help="no registry, no network inside the build")
    how.add_argument("--python-image", metavar="TAG", help="Python base image, such as one from your own registry")
    parser.add_argument("--rebuild-base", action="store_true", help="make the offline base image anew")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror for the base, instead of debootstrap's own")
    parser.add_argument(
        "--security-mirror", metavar="URL", help="Debian's security archive, instead of the one of this machine's apt"
    )
    return parser.parse_args(arguments)


def _build(options: argparse.Namespace) -> None:
    folders = [folder_of(name) for name in options.names] or list(example_folders().values())
    with engine_at(options.engine) as engine:
        base = (
            offline_base(engine, rebuild=options.rebuild_base, mirrors=Mirrors(options.mirror, options.security_mirror))
            if options.offline
            else Base(options.python_image)
        )
        for folder in folders:
            print(build_image(engine, folder, base), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the command line names; prints the tags, and on failure one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parse(arguments)
    try:
        _build(options)
    except (BaseImageError, DownloadError, ImageBuildFailed, InvalidRequest, SiteCaError) as error:
        print(error, file=sys.stderr)
        return 1
    except DockerException as error:
        print(no_engine(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

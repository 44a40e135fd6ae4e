"""The images of the services: what each is built from, and when it is built anew."""

import hashlib
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError

from deployment.building import build, image_id
from deployment.image_names import ROOT, SERVICES
from deployment.requirements import requirements_of
from deployment.wheels import wheels_for

log = logging.getLogger(__name__)

CONTENT_LABEL = "inference-server.content"
"""Label with a digest of everything that an image was built from."""

_SHARED = ("contracts", "service_kit")
_BUILD_FILES = (
    "Dockerfile",
    ".dockerignore",
    "constraints.txt",
    "deployment/requirements.py",
    "deployment/slimming.py",
)
_NO_SOURCES = shutil.ignore_patterns("__pycache__", "*.pyc")
_PYPROJECT = ROOT / "pyproject.toml"
_GIT_SECONDS = 10


@dataclass(frozen=True)
class ServiceBuild:
    """How the images are built. Without ``wheels_for_python`` pip asks its index in the build."""

    python_image: str
    version: str
    revision: str = ""
    wheels_for_python: str | None = None
    """A Python version such as '3.11': install from wheels that this machine's pip downloads, without a network."""
    certificates: str | None = None
    """PEM text of authorities that pip in the build is to trust besides the public ones."""
    index_arguments: Mapping[str, str] | None = None
    """PIP_INDEX_URL and PIP_EXTRA_INDEX_URL, where this machine has some."""


def build_service(
    engine: docker.DockerClient, service: str, tag: str, how: ServiceBuild, *, rebuild: bool = False
) -> bool:
    """Build one service's image under the tag unless it is there with the same content; whether it was built.

    The image that had the tag before is removed when nothing uses it.

    Raises
    ------
    ImageBuildFailed
        The Dockerfile failed or the engine refused.
    DownloadError
        The wheels for a build without a network could not be had.
    """
    before = image_id(engine, tag)
    content = _content_of(service, how, image_id(engine, how.python_image) or "")
    if before and not rebuild and engine.images.get(tag).labels.get(CONTENT_LABEL) == content:
        return False
    log.info("building %s", tag)
    architecture = str(engine.info()["Architecture"])
    with _context(service, how, architecture) as (context, arguments):
        network = "none" if how.wheels_for_python else None
        build(engine, context, tag, arguments, network=network, labels={CONTENT_LABEL: content})
    if before and before != image_id(engine, tag):
        _remove_unused(engine, before)
    return True


def git_revision(checkout: Path = ROOT) -> str:
    """The commit of the checkout, with ``-dirty`` where shipped files differ from it; empty where git cannot tell."""
    shipped = ["--", *_BUILD_FILES, "pyproject.toml", *_SHARED, *SERVICES]
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain", *shipped)
    if commit is None or changes is None:
        return ""
    return commit + ("-dirty" if changes else "")


def _git(checkout: Path, *arguments: str) -> str | None:
    """What git prints, or None."""
    if not (checkout / ".git").exists():
        return None  # a release that lies inside some other checkout has no revision of its own
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _content_of(service: str, how: ServiceBuild, base_id: str) -> str:
    """A digest of what goes into the image: sources by name and content, packages, base, labels."""
    digest = hashlib.sha256()
    for part in (service, base_id, how.python_image, how.version, how.revision, *requirements_of(service, _PYPROJECT)):
        digest.update(part.encode() + b"\0")
    for path in _files_of(service):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files_of(service: str) -> list[Path]:
    folders = (path for name in (*_SHARED, service) for path in (ROOT / name).rglob("*"))
    sources = (path for path in folders if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc")
    return [*(ROOT / name for name in _BUILD_FILES), *sorted(sources)]


@contextmanager
def _context(service: str, how: ServiceBuild, architecture: str) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """What the build sees, and the build arguments."""
    arguments = {
        "SERVICE": service,
        "PYTHON_IMAGE": how.python_image,
        "VERSION": how.version,
        "REVISION": how.revision,
        **(how.index_arguments or {}),
    }
    with tempfile.TemporaryDirectory(prefix="build-context-") as scratch:
        context = Path(scratch) / "context"
        for name in (*_SHARED, service):
            shutil.copytree(ROOT / name, context / name, ignore=_NO_SOURCES)
        for name in (*_BUILD_FILES, "pyproject.toml"):
            (context / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, context / name)
        if how.wheels_for_python:
            shutil.copytree(_wheels(service, how.wheels_for_python, architecture, Path(scratch)), context / "wheels")
            arguments |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/build"}
        elif how.certificates:
            (context / "site-ca.pem").write_text(how.certificates, encoding="utf-8")
        yield context, arguments


def _wheels(service: str, python_version: str, architecture: str, scratch: Path) -> Path:
    requirements = scratch / f"{service}-requirements.txt"
    requirements.write_text("\n".join(requirements_of(service, _PYPROJECT)) + "\n", encoding="utf-8")
    return wheels_for(requirements, python_version, architecture, ROOT / "constraints.txt")


def _remove_unused(engine: docker.DockerClient, image: str) -> None:
    """Remove an image that lost its tag; the engine refuses where a container or another tag needs it."""
    try:
        engine.images.remove(image)
    except APIError as error:
        if error.status_code not in {404, 409}:
            raise
        log.info("kept the previous image %s: %s", image[:19], error.explanation)

"""The Python base image, made from Debian packages alone: for machines that reach a package mirror but no registry."""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

log = logging.getLogger(__name__)

SUITE = "bookworm"
PYTHON_VERSION = "3.11"
"""The Python of SUITE; wheels for offline builds are chosen for it."""
REPOSITORY = "inference-server/python-base"
TAG = f"{REPOSITORY}:{SUITE}"

PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_BOOTSTRAP_SECONDS = 900
_PACKAGE_LEFTOVERS = (
    "var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/info",
    "usr/share/locale",
)  # fmt: skip
_IMAGE_SETTINGS = ["ENV LANG=C.UTF-8 PIP_BREAK_SYSTEM_PACKAGES=1", 'CMD ["python3"]']


class BaseImageError(Exception):
    """The base image could not be made; the message says what to do."""


def ensure_python_base(engine: docker.DockerClient, *, rebuild: bool = False, mirror: str | None = None) -> str:
    """The tag of the base image on this engine; made by debootstrap (root, half a minute) unless it is there already.

    Raises
    ------
    BaseImageError
        Not root, debootstrap missing or failed, or the engine refused the import.
    """
    if not rebuild and _exists(engine, TAG):
        return TAG
    _check_tools()
    log.info("making %s from %s", TAG, mirror or "debootstrap's own mirror")
    with tempfile.TemporaryDirectory(prefix="python-base-") as scratch:
        tree = Path(scratch) / "root"
        _bootstrap(tree, mirror)
        _tidy(tree)
        _import(engine, tree)
    return TAG


def _exists(engine: docker.DockerClient, tag: str) -> bool:
    try:
        engine.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _check_tools() -> None:
    if shutil.which("debootstrap") is None:
        raise BaseImageError("debootstrap is not installed; run: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise BaseImageError("debootstrap needs root to make a file tree with its owners; run this command with sudo.")


def _bootstrap(tree: Path, mirror: str | None) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tree)]
    if mirror is not None:
        command.append(mirror)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_BOOTSTRAP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        asked = mirror or "its mirror"
        raise BaseImageError(f"debootstrap took longer than {_BOOTSTRAP_SECONDS} s; is {asked} reachable?") from error
    if done.returncode != 0:
        last_lines = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise BaseImageError(
            f"debootstrap failed; name a Debian mirror that this machine reaches with --mirror. It said:\n{last_lines}"
        )


def _tidy(tree: Path) -> None:
    """Drop what no container needs, and give Python its usual name."""
    for name in _PACKAGE_LEFTOVERS:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "usr/local/bin/python").symlink_to("/usr/bin/python3")


@contextmanager
def _archive_of(tree: Path) -> Iterator[Path]:
    """The tree as a tar; devices are left out, the engine brings its own."""
    archive = tree.parent / "root.tar"
    subprocess.run(
        ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(tree), "-cf", str(archive), "."],
        check=True,
        timeout=_BOOTSTRAP_SECONDS,
    )
    try:
        yield archive
    finally:
        archive.unlink()


def _import(engine: docker.DockerClient, tree: Path) -> None:
    with _archive_of(tree) as archive:
        try:
            engine.api.import_image_from_file(str(archive), repository=REPOSITORY, tag=SUITE, changes=_IMAGE_SETTINGS)
        except APIError as error:
            raise BaseImageError(f"the engine refused the base image: {error.explanation or error}") from error
    if not _exists(engine, TAG):
        raise BaseImageError(f"the engine imported no image {TAG}; is its disk full?")

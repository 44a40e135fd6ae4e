"""Brings an image that was made here into an engine: once per recipe, and by one process of this machine at a time."""

import fcntl
import hashlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, ImageNotFound

from deployment.base_images import BaseImageError

log = logging.getLogger(__name__)

RECIPE_LABEL = "inference-server.recipe"
"""Label of an image that says which recipe it was made from; another one here means that it is made anew."""

_WAIT_FOR_OTHERS_SECONDS = 3600.0
_LOOK_AGAIN_SECONDS = 0.2


@dataclass(frozen=True)
class ImageFiles:
    """What goes into an image."""

    archive: Path
    """A tar of all its files."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What turned out while they were made."""


def cache_folder() -> Path:
    """The folder of this user for what makes the next image quicker; may be deleted at any time."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inference-server" / "base-images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def recipe_identity(recipe: object) -> str:
    """A short name for the content of a recipe: a frozen dataclass, or anything else whose ``repr`` is its content."""
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def ensure_image(
    engine: docker.DockerClient,
    tag: str,
    identity: str,
    settings: tuple[str, ...],
    make_files: Callable[[Path], ImageFiles],
    *,
    rebuild: bool = False,
) -> str:
    """The tag, once the engine has that image of that recipe.

    Parameters
    ----------
    identity
        The recipe's name (:func:`recipe_identity`); kept in the image's label.
    settings
        Dockerfile instructions for the image's configuration (``ENV``, ``ENTRYPOINT``, …).
    make_files
        Makes the image's files in the empty folder that it is given, which is removed afterwards.

    Raises
    ------
    BaseImageError
        The files could not be made, or the engine refused it.
    """
    if not rebuild and _has(engine, tag, identity):
        return tag
    with _alone():
        # Another process may have made it while this one waited.
        if rebuild or not _has(engine, tag, identity):
            _make(engine, tag, (*settings, f"LABEL {RECIPE_LABEL}={identity}"), make_files)
            if not _has(engine, tag, identity):
                raise BaseImageError(f"the engine imported no image {tag}; is its disk full?")
    return tag


def _has(engine: docker.DockerClient, tag: str, identity: str) -> bool:
    try:
        labels = engine.images.get(tag).labels
    except ImageNotFound:
        return False
    return bool(labels.get(RECIPE_LABEL) == identity)


def _make(
    engine: docker.DockerClient, tag: str, settings: tuple[str, ...], make_files: Callable[[Path], ImageFiles]
) -> None:
    """Import the files, then put the settings on top: an import alone takes no STOPSIGNAL."""
    with tempfile.TemporaryDirectory(prefix="base-image-") as scratch:
        files = make_files(Path(scratch))
        try:
            last = json.loads(engine.api.import_image_from_file(str(files.archive)).splitlines()[-1])
            if "error" in last:
                raise BaseImageError(f"the engine could not import the files of {tag}: {last['error']}")
            labels = (f"LABEL {name}={value}" for name, value in files.labels.items())
            dockerfile = "\n".join((f"FROM {last['status']}", *settings, *labels, ""))
            engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True, forcerm=True)
        except (APIError, BuildError) as error:
            raise BaseImageError(f"the engine refused the image {tag}: {error}") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Hold this user's lock for making images: debootstrap's cache of packages bears one writer."""
    path = cache_folder() / "lock"
    with path.open("w") as lock:
        _wait_for(lock.fileno(), path)
        yield


def _wait_for(lock: int, path: Path) -> None:
    end = time.monotonic() + _WAIT_FOR_OTHERS_SECONDS
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise BaseImageError(
                    f"another process has been making base images for {_WAIT_FOR_OTHERS_SECONDS:.0f} s; "
                    f"it holds {path}: end it, and try again"
                ) from error
            if not told:
                log.info("waiting for another process that makes base images")
                told = True
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return

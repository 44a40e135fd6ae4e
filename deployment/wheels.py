"""Wheels downloaded on this machine for an image of another Python, so that a build needs no network at all."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

_OLDEST_GLIBC_MINOR = 17
_NEWEST_GLIBC_MINOR = 36
"""Of Debian bookworm; wheels that ask for a newer glibc 2.x would not load."""
_DOWNLOAD_SECONDS = 900


class DownloadError(Exception):
    """The wheels could not be had; the message carries pip's own reason."""


def wheels_for(requirements: Path, python_version: str, architecture: str, constraints: Path | None = None) -> Path:
    """A folder with every wheel that the requirements need, dependencies included; kept for the next call.

    Two calls with the same text of requirements and constraints share a folder. ``pip`` runs with this machine's own
    configuration: mirror, proxy and certificates are those of the operator.

    Raises
    ------
    DownloadError
        pip found no matching wheel, or reached no index.
    """
    asked = requirements.read_bytes() + (b"\0" + constraints.read_bytes() if constraints else b"")
    identity = hashlib.sha256(asked).hexdigest()[:16]
    kept = _cache_folder() / f"{identity}-py{python_version}-{architecture}"
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    log.info("downloading wheels for %s", requirements)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".download-") as scratch:
        _download(requirements, constraints, python_version, architecture, Path(scratch))
        _keep(Path(scratch), kept)
    return kept


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "inference-server" / "wheels"


def _keep(scratch: Path, kept: Path) -> None:
    """Publish the complete folder in one step; another process may have been first, and its folder is as good."""
    complete = scratch / "complete"
    complete.mkdir()
    for wheel in scratch.glob("*.whl"):
        shutil.move(wheel, complete)
    try:
        complete.rename(kept)
    except OSError:
        if not kept.is_dir():
            raise


def _download(
    requirements: Path, constraints: Path | None, python_version: str, architecture: str, target: Path
) -> None:
    glibc_minors = range(_NEWEST_GLIBC_MINOR, _OLDEST_GLIBC_MINOR - 1, -1)
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in glibc_minors]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(target),
        "--python-version", python_version, "--implementation", "cp",
        *(f"--platform={platform}" for platform in (*platforms, f"manylinux2014_{architecture}")),
        "--requirement", str(requirements), *(("--constraint", str(constraints)) if constraints else ()),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"pip took longer than {_DOWNLOAD_SECONDS} s to download {requirements}.") from error
    if done.returncode != 0:
        last_lines = "\n".join(done.stderr.splitlines()[-5:])
        raise DownloadError(f"pip could not download the wheels of {requirements}:\n{last_lines}")

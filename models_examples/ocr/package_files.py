"""Takes files out of a Python package without importing it: from this environment, or from its wheel."""

import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_DOWNLOAD_SECONDS = 600


def read_package_files(requirement: str, paths: Sequence[str]) -> Mapping[str, bytes]:
    """The files at these paths inside the package that ``name==version`` names.

    That version is taken where it is installed; elsewhere its wheel is downloaded with pip, alone, and thrown away.
    """
    name, _, version = requirement.partition("==")
    try:
        installed = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return _from_wheel(requirement, paths)
    if installed.version != version:
        return _from_wheel(requirement, paths)
    return {path: Path(str(installed.locate_file(path))).read_bytes() for path in paths}


def _from_wheel(requirement: str, paths: Sequence[str]) -> Mapping[str, bytes]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        try:
            subprocess.run(
                [*command, "--ignore-requires-python", "--dest", folder, requirement],
                check=True,
                timeout=_DOWNLOAD_SECONDS,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise SystemExit(f"{requirement} is not installed and cannot be downloaded: {error}") from error
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return {path: archive.read(path) for path in paths}

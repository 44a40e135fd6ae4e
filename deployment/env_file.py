"""Writing the .env of a deployment: adds what is not there, and never changes what a person wrote."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deployment.environment import read_assignments

PRIVATE = 0o600
"""Mode of a new .env: it is where people put passwords."""


def add_missing(env_file: Path, values: Mapping[str, str], reason: str) -> dict[str, str]:
    """Append ``NAME=value`` for each name without a value in the file, below the reason as a comment; what was added.

    The file appears at once or not at all. A new one is its owner's alone to read, and belongs to the owner of its
    folder: whoever makes images as root may start the stack as another user.
    """
    path = env_file.resolve()
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    present = read_assignments(before)
    added = {name: value for name, value in values.items() if not present.get(name)}
    if added:
        gap = "\n" if before and not before.endswith("\n") else ""
        lines = [f"# {reason}", *(f"{name}={value}" for name, value in added.items())]
        _replace(path, before + gap + "\n".join(lines) + "\n")
    return added


def _replace(path: Path, text: str) -> None:
    like = path.stat() if path.is_file() else path.parent.stat()
    mode = like.st_mode & 0o777 if path.is_file() else PRIVATE
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".env-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), mode)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink()
        raise

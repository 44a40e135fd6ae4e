"""Tokens that a program makes for itself and its own kind, and finds again at its next start."""

import os
import secrets
from pathlib import Path


def token_in(path: Path) -> str:
    """The token in the file, which only its owner can read; made where there is none.

    Raises
    ------
    OSError
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if token := path.read_text(encoding="ascii").strip():
            return token
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)  # its making was cut off
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        token = secrets.token_urlsafe(32)
        file.write(token)
    return token

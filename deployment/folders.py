"""Makes the folders under DATA_DIR with the owners that their containers need: ``python3 -m deployment.folders``.

Without DATA_DIR there is nothing to do: named volumes take their owners from the images. Needs nothing but Python.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deployment.environment import deployment_environment

SERVICE_USER = 10001
"""Of public_api and private_api in their images."""
FOLDERS: Mapping[str, int | None] = {"files": SERVICE_USER, "database": None, "queue": None, "acme": None}
"""Name under DATA_DIR, as in docker-compose.yaml, and its owner; None where the container sets it itself."""


def make_folders(data: Path) -> None:
    """Make what is missing; what is there keeps its owner.

    Raises
    ------
    OSError
        The folders cannot be made, or not given to their owners.
    """
    for name, owner in FOLDERS.items():
        folder = data / name
        if folder.is_dir():
            continue
        folder.mkdir(mode=0o700, parents=True)
        if owner is not None:
            os.chown(folder, owner, owner)


def main() -> int:
    """Make the folders of the environment's or .env's DATA_DIR; 1 with one line where that cannot be."""
    data = deployment_environment().get("DATA_DIR")
    if not data:
        return 0
    if not Path(data).is_absolute():
        print(f"DATA_DIR: {data} is no absolute path; compose would take it for a volume's name", file=sys.stderr)
        return 1
    try:
        make_folders(Path(data))
    except OSError as error:
        print(f"DATA_DIR: {error.filename}: {error.strerror}; run this as root", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

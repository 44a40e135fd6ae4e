"""Makes the folders of a host with the owners that their containers need: ``python3 -m deployment.folders``.

Those under DATA_DIR, where that is set: named volumes take their owners from the images. And the consumers' scratch
folder where they are not root: the engine would make it root's. It also lets the broker read its settings in a clone
that was made under a strict umask. Needs nothing but Python.
"""

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from deployment.environment import deployment_environment
from deployment.variables import DEPLOYED_DEFAULTS

SERVICE_USER = 10001
"""Of our services in their images, except the consumers."""
FOLDERS: Mapping[str, int | None] = {
    "files": SERVICE_USER,
    "online": SERVICE_USER,
    "database": None,
    "queue": None,
    "acme": None,
}
"""Name under DATA_DIR, as in docker-compose.yaml, and its owner; None where the container sets it itself."""
BROKER_SETTINGS = Path("rabbitmq/rabbitmq.conf")
"""Mounted as it is, and read by the broker's own user; nothing in it is secret."""


def make_folders(data: Path) -> None:
    """Make what is missing; what holds something keeps its owner.

    Raises
    ------
    OSError
        The folders cannot be made, or not given to their owners.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, owner in FOLDERS.items():
        folder = data / name
        folder.mkdir(mode=0o755, exist_ok=True)  # the servers' own users pass it inside; DATA_DIR lets nobody in
        # An empty one of another owner is what the engine made, or a call of someone who might not give it away.
        if owner is not None and folder.stat().st_uid != owner and not any(folder.iterdir()):
            os.chown(folder, owner, owner)


def make_scratch(scratch: Path, user: str) -> None:
    """Make the consumers' folder, theirs; ``user`` is as compose takes it, UID or UID:GID.

    Raises
    ------
    OSError
        The folder cannot be made, or not given to the user.
    """
    uid = int(user.partition(":")[0])
    if uid == 0:
        return
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    if scratch.stat().st_uid != uid:
        os.chown(scratch, uid, -1)


def let_all_read(file: Path) -> None:
    """Give the file to read to everyone.

    Raises
    ------
    OSError
        It is another user's, and not for everyone.
    """
    mode = stat.S_IMODE(file.stat().st_mode)
    if not mode & stat.S_IROTH:
        file.chmod(mode | stat.S_IRGRP | stat.S_IROTH)


def main() -> int:
    """Make the folders that the environment or .env names; 1 with one line where that cannot be."""
    given = deployment_environment()
    data = given.get("DATA_DIR")
    if data and not Path(data).is_absolute():
        print(f"DATA_DIR: {data} is no absolute path; compose would take it for a volume's name", file=sys.stderr)
        return 1
    try:
        let_all_read(BROKER_SETTINGS)
        if data:
            make_folders(Path(data))
        make_scratch(
            Path(given.get("SCRATCH_DIR", DEPLOYED_DEFAULTS["SCRATCH_DIR"])), given.get("CONSUMER_USER", "0:0")
        )
    except ValueError:
        print("CONSUMER_USER: write numbers, as in 10001:999", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}; run this as root", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Makes the secrets that the services share: ``python3 -m deployment.secrets [FOLDER]`` (``make secrets``).

Each is a file, read by containers as /run/secrets/NAME. What is there already stays, and a second call changes
nothing; a password given in the environment or in .env is taken, any other is random. Needs nothing but Python.
"""

import argparse
import base64
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from contracts.queue import ALL_QUEUES, QUEUE_ARGUMENTS
from deployment.environment import deployment_environment

USER = "inference"
"""Of PostgreSQL and of RabbitMQ; also the name of the database and of the virtual host."""
TOKENS = ("INTERNAL_TOKEN", "WORKER_TOKEN", "ADMIN_TOKEN")
POSTGRES_PASSWORD, RABBITMQ_PASSWORD = "POSTGRES_PASSWORD", "RABBITMQ_PASSWORD"
GIVEN = (*TOKENS, POSTGRES_PASSWORD, RABBITMQ_PASSWORD)
"""What an operator may choose."""

_TOKEN_BYTES = 32
_SHORTEST = 16
_SALT_BYTES = 4
_FOLDER_MODE = 0o700
_FILE_MODE = 0o444
"""Containers read the files as other users than their owner; nobody else on the host passes the folder."""


class BadSecret(Exception):
    """A given secret cannot be used, or the files there do not belong together; the message says what to do."""


def make_secrets(folder: Path, given: Mapping[str, str]) -> list[str]:
    """Write the files that are missing; their names.

    Raises
    ------
    BadSecret
        A given value is unusable, differs from the file that is there, or one file of a pair is missing.
    OSError
        The folder cannot be written.
    """
    for name in GIVEN:
        _check_given(name, given.get(name, ""))
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    groups: tuple[tuple[str, Callable[[str], Mapping[str, str]]], ...] = (
        *((name, partial(_token_file, name)) for name in TOKENS),
        (POSTGRES_PASSWORD, _database_files),
        (RABBITMQ_PASSWORD, _broker_files),
    )
    made: list[str] = []
    for name, files_of in groups:
        made += _make_group(folder, name, given.get(name, ""), files_of)
    return made


def rabbitmq_hash(password: str, salt: bytes) -> str:
    """A password as RabbitMQ keeps it: base64 of the salt and the SHA-256 of salt and password.

    https://www.rabbitmq.com/docs/passwords
    """
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(password: str, salt: bytes) -> dict[str, object]:
    """What a fresh broker starts with: one user, one virtual host, the queues; no ``guest``.

    https://www.rabbitmq.com/docs/definitions
    """
    return {
        "users": [
            {
                "name": USER,
                "password_hash": rabbitmq_hash(password, salt),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
        ],
        "vhosts": [{"name": USER}],
        "permissions": [{"user": USER, "vhost": USER, "configure": ".*", "write": ".*", "read": ".*"}],
        "queues": [
            {"name": name, "vhost": USER, "durable": True, "auto_delete": False, "arguments": dict(QUEUE_ARGUMENTS)}
            for name in ALL_QUEUES
        ],
    }


def _token_file(name: str, token: str) -> dict[str, str]:
    return {name.lower(): token}


def _database_files(password: str) -> dict[str, str]:
    return {
        "postgres_password": password,
        "database_url": f"postgresql://{USER}:{quote(password, safe='')}@postgres:5432/{USER}",
    }


def _broker_files(password: str) -> dict[str, str]:
    content = definitions(password, secrets.token_bytes(_SALT_BYTES))
    return {
        "rabbitmq_url": f"amqp://{USER}:{quote(password, safe='')}@rabbitmq:5672/{USER}",
        "rabbitmq_definitions.json": json.dumps(content, indent=1),
    }


def _make_group(folder: Path, name: str, given: str, files_of: Callable[[str], Mapping[str, str]]) -> list[str]:
    """Files that hold one secret are written together or not at all."""
    value = given or secrets.token_urlsafe(_TOKEN_BYTES)
    files = files_of(value)
    there = [file for file in files if (folder / file).exists()]
    if there and len(there) < len(files):
        missing = ", ".join(sorted(set(files) - set(there)))
        raise BadSecret(
            f"{folder} holds {', '.join(there)} but not {missing}, which must carry the same password. Put the missing "
            f"file back, or remove both and set {name} to the password in use."
        )
    if there:
        first = next(iter(files))
        if given and (folder / first).read_text(encoding="utf-8").strip() != files[first]:
            raise BadSecret(
                f"{name} is not what {folder / first} holds. To change a password, change it in the running service "
                f"first; then remove {', '.join(files)} and call this again."
            )
        return []
    for file, content in files.items():
        _write(folder / file, content)
    return list(files)


def _write(path: Path, content: str) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    unfinished.chmod(_FILE_MODE)
    unfinished.rename(path)


def _check_given(name: str, value: str) -> None:
    if value and (len(value) < _SHORTEST or not value.isascii() or not value.isprintable() or " " in value):
        raise BadSecret(f"{name} must be at least {_SHORTEST} printable ASCII characters without spaces.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what is missing and say so; 1 with one line where that cannot be."""
    parser = argparse.ArgumentParser(prog="python3 -m deployment.secrets", description="Make the deployment's secrets.")
    parser.add_argument("folder", nargs="?", type=Path, help="default: SECRETS_DIR, else ./secrets")
    options = parser.parse_args(arguments)
    given = deployment_environment()
    folder = options.folder or Path(given.get("SECRETS_DIR") or "secrets")
    try:
        made = make_secrets(folder, given)
    except (BadSecret, OSError) as error:
        print(f"secrets: {error}", file=sys.stderr)
        return 1
    print(f"secrets: made {', '.join(made)} in {folder}" if made else f"secrets: all are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

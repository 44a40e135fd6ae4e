"""Takes a deployment's data away: ``python3 -m deployment.reset queue|all [--yes]``. Needs Python and docker compose.

``queue`` empties RabbitMQ alone, for a broker that cannot recover: tasks stand in SQL, and private_api publishes those
that wait once the broker is back. ``all`` removes tasks, models, files, what the online gateway serves, database,
queue, and what the consumers keep on this host's engine; secrets and certificates stay. A soft reset is no matter of
data: ``make down`` and ``make up``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deployment.environment import deployment_environment

_COMPOSE = ("docker", "compose")
_CALL_SECONDS = 600
_EMPTY_FOLDER = "find /var/lib/rabbitmq -mindepth 1 -delete"
_DATA = ("files", "online", "database", "queue")
"""Not ``acme``: Let's Encrypt gives a name only a few certificates per week."""
_INSTALLATION_LABEL = "inference-server.installation"


class ResetFailed(Exception):
    """A step failed; the message holds what it said."""


def reset_queue() -> None:
    """Stop the broker, empty its folder, start it again.

    Raises
    ------
    ResetFailed
        Compose refused a step.
    """
    _call(*_COMPOSE, "rm", "--stop", "--force", "rabbitmq")
    _call(*_COMPOSE, "run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "rabbitmq", "-c", _EMPTY_FOLDER)
    _call(*_COMPOSE, "up", "--detach", "--wait", "--no-recreate", "rabbitmq")


def reset_all(data: Path | None) -> None:
    """Stop everything and remove its data; the next start begins with nothing.

    Raises
    ------
    ResetFailed
        Compose or the engine refused a step, or a folder under DATA_DIR could not be emptied.
    """
    installation = _installation()
    _call(*_COMPOSE, "--profile", "*", "down", "--remove-orphans")
    if data is None:
        _remove_volumes()
    else:
        for name in _DATA:
            _empty(data / name)
    if installation:
        _remove_what_consumers_keep(installation)


def _installation() -> str | None:
    """Whose labels the containers and volumes of the consumers carry; None where the database cannot tell."""
    asked = ("run", "--rm", "-T", "private-api", "python", "-m", "private_api.admin", "installation")
    try:
        return _call(*_COMPOSE, *asked).strip()
    except ResetFailed as error:
        print(
            f"model content on this engine stays, its owner is not known ({error}). Volumes of models: "
            f"docker volume ls --filter label={_INSTALLATION_LABEL}",
            file=sys.stderr,
        )
        return None


def _remove_what_consumers_keep(installation: str) -> None:
    """Model content, and what runs of a consumer that died."""
    labelled = f"label={_INSTALLATION_LABEL}={installation}"
    for container in _call("docker", "ps", "--all", "--quiet", "--filter", labelled).split():
        _call("docker", "rm", "--force", "--volumes", container)
    for volume in _call("docker", "volume", "ls", "--quiet", "--filter", labelled).split():
        _call("docker", "volume", "rm", volume)


def _remove_volumes() -> None:
    names = json.loads(_call(*_COMPOSE, "config", "--format", "json"))["volumes"]
    there = _call("docker", "volume", "ls", "--quiet").split()
    for key in _DATA:
        if names[key]["name"] in there:
            _call("docker", "volume", "rm", names[key]["name"])


def _empty(folder: Path) -> None:
    try:
        _call("find", str(folder), "-mindepth", "1", "-delete")
    except ResetFailed as error:
        raise ResetFailed(f"{error}; run this as root") from error


def _call(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False)
    except FileNotFoundError as error:
        raise ResetFailed(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ResetFailed(f"{' '.join(command)} took longer than {_CALL_SECONDS} s") from error
    if done.returncode != 0:
        raise ResetFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, then do; 1 with one line where a step failed or the answer was no."""
    parser = argparse.ArgumentParser(prog="python3 -m deployment.reset", description="Take a deployment's data away.")
    parser.add_argument("what", choices=["queue", "all"])
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    if options.what == "all" and not options.yes and not _is_meant():
        print("nothing was removed", file=sys.stderr)
        return 1
    data = deployment_environment().get("DATA_DIR")
    try:
        if options.what == "queue":
            reset_queue()
        else:
            reset_all(Path(data) if data else None)
    except ResetFailed as error:
        print(f"reset: {error}", file=sys.stderr)
        return 1
    return 0


def _is_meant() -> bool:
    print(
        "This removes all tasks, models, files and the database. Type 'remove everything' to go on: ",
        end="",
        flush=True,
    )
    return sys.stdin.readline().strip() == "remove everything"


if __name__ == "__main__":
    sys.exit(main())

"""Writes docker-compose.gpus.yaml, one consumer for each card of this host: ``python3 -m deployment.gpus``.

Each service extends ``job-consumer-gpu`` of docker-compose.yaml by the UUID of its card, which stays the same when
cards are added or change places. Needs nothing but Python and the driver's nvidia-smi.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployment.environment import deployment_environment

GPUS_FILE = "docker-compose.gpus.yaml"

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
_ROW = re.compile(r"(?P<index>\d+), (?P<uuid>GPU-[0-9a-f-]+), (?P<name>.+)")
_SMI_SECONDS = 60
_HEAD = """\
# One consumer for each card of this host. `make gpus` writes this file; write it anew when cards come or go.
services:
"""
_SERVICE = """\
  job-consumer-gpu-{index}:  # {name}
    extends: {{ file: docker-compose.yaml, service: job-consumer-gpu }}
    profiles: !reset []
    environment: {{ GPU_UUID: "{uuid}", GPU_INDEX: "" }}
"""


class NoCards(Exception):
    """There is nothing to write; the message says what to do."""


@dataclass(frozen=True)
class Card:
    """One card, as nvidia-smi lists it."""

    index: int
    uuid: str
    name: str


def cards() -> list[Card]:
    """The cards of this host.

    Raises
    ------
    NoCards
        nvidia-smi is missing, fails, or lists none.
    """
    try:
        ended = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)
    except FileNotFoundError as error:
        raise NoCards("nvidia-smi is not on the PATH: install NVIDIA's driver on this host first.") from error
    except subprocess.TimeoutExpired as error:
        raise NoCards(f"nvidia-smi did not answer within {_SMI_SECONDS} s: a card may be broken; see dmesg.") from error
    if ended.returncode != 0:
        said = " ".join((ended.stdout + ended.stderr).split())
        raise NoCards(f"nvidia-smi ended with status {ended.returncode}: {said}")
    rows = [line for line in ended.stdout.splitlines() if line.strip()]
    if not rows:
        raise NoCards("nvidia-smi lists no card on this host.")
    return [_card(row) for row in rows]


def _card(row: str) -> Card:
    match = _ROW.fullmatch(row.strip())
    if match is None:
        raise NoCards(f"nvidia-smi printed a line that is no card: {row.strip()!r}")
    return Card(int(match["index"]), match["uuid"], match["name"])


def compose_file(found: Sequence[Card]) -> str:
    """The text of the file."""
    return _HEAD + "".join(_SERVICE.format(index=card.index, name=card.name, uuid=card.uuid) for card in found)


def main() -> int:
    """Write the file and say how it comes to be read; the exit status."""
    try:
        found = cards()
    except NoCards as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Path(GPUS_FILE).write_text(compose_file(found), encoding="utf-8")
    print(f"{GPUS_FILE} has a consumer for each of these cards:")
    for card in found:
        print(f"  {card.index}  {card.uuid}  {card.name}")
    files = deployment_environment().get("COMPOSE_FILE", "docker-compose.yaml").split(":")
    if GPUS_FILE in files:
        print("It is read already. Start them: make up")
    else:
        print(f"Put this line into .env:\n  COMPOSE_FILE={':'.join([*files, GPUS_FILE])}\nThen: make up")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Opens a TCP connection to each address, all at once; /output/report.json says which answered and why others did not."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 2.0
ALWAYS_TRIED = ("127.0.0.1:22", "127.0.0.1:80")
"""Loopback only: where the isolation under test is missing, nothing may leave the machine."""


def attempt(address: str) -> str:
    """Why the address cannot be reached; empty when it can."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS):
            return ""
    except OSError as error:
        return str(error) or type(error).__name__


def main() -> None:
    """Try all and write the report."""
    given = Path(os.environ.get("INPUT_DIR", "/input"), "targets.txt")
    addresses = [*given.read_text(encoding="ascii").split(), *ALWAYS_TRIED]
    with ThreadPoolExecutor(len(addresses)) as pool:
        answers = dict(zip(addresses, pool.map(attempt, addresses), strict=True))
    report = {
        "reached": [address for address, why in answers.items() if not why],
        "not_reached": {address: why for address, why in answers.items() if why},
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
    }
    Path(os.environ.get("OUTPUT_DIR", "/output"), "report.json").write_text(json.dumps(report), encoding="utf-8")


main()

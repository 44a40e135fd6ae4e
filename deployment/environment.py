"""The variables of a deployment as compose sees them: .env in the current folder, and the environment before it.

``python3 -m deployment.environment NAME`` prints the value of one, or nothing.
"""

import os
import re
import sys
from pathlib import Path

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*?)\s*$")


def deployment_environment(env_file: Path = Path(".env")) -> dict[str, str]:
    """All variables with a value; empty ones count as not given."""
    from_file = read_assignments(env_file.read_text(encoding="utf-8")) if env_file.is_file() else {}
    return {name: value for name, value in (from_file | dict(os.environ)).items() if value}


def read_assignments(text: str) -> dict[str, str]:
    """The NAME=value lines of an .env file: comments left out, one pair of quotes taken off."""
    found = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.match(line)
        if match:
            found[match["name"]] = _unquoted(match["value"])
    return found


def _unquoted(value: str) -> str:
    for mark in "'\"":
        if value.startswith(mark):
            return value[1:].partition(mark)[0]
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()


if __name__ == "__main__":
    print(deployment_environment().get(sys.argv[1], ""))

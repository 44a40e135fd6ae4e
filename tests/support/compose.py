"""The compose and stack files as data, for tests that hold them to their promises."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE_FILE = ROOT / "docker-compose.yaml"
STACK_FILE = ROOT / "docker-stack.yaml"

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(?::-(?P<default>[^{}]*)|:\+[^{}]*(?:\{[^{}]*\}[^{}]*)?)?\}")
_COMMENT = re.compile(r"(?m)(^|\s)#.*$")


def load(path: Path) -> dict[str, Any]:
    """The file with its aliases resolved and its variables as they stand."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def variables(path: Path) -> dict[str, set[str]]:
    """Every variable that the file uses, with the defaults that it gives them; those in comments are only spoken of."""
    found: dict[str, set[str]] = {}
    for match in _REFERENCE.finditer(_COMMENT.sub("", path.read_text(encoding="utf-8"))):
        found.setdefault(match["name"], set())
        if match["default"] is not None:
            found[match["name"]].add(match["default"])
    return found

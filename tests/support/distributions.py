"""What installed distributions need, by the metadata of this environment."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires


def normal(requirement: str) -> str:
    """The name at a requirement's beginning, as package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()


def needed_by(requirements: Iterable[str]) -> set[str]:
    """The distributions and all that they need themselves, at any depth, with the extras that are asked for at the top."""
    extras = {normal(line): re.findall(r"\w+", line.partition("[")[2].partition("]")[0]) for line in requirements}
    found: set[str] = set()
    waiting = set(extras)
    while waiting:
        name = waiting.pop()
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # of another platform
        wanted = re.compile(r"extra == ['\"](?!({})['\"])".format("|".join(extras.get(name, [])) or "-"))
        waiting |= {normal(line) for line in lines if not wanted.search(line)} - found
    return found

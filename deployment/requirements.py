"""What the image of one service installs: ``python deployment/requirements.py SERVICE`` prints pip's requirement lines.

The names stand in ``[tool.inference-server.images]`` of pyproject.toml, their bounds in its ``[project]`` table, as
dependencies or in an extra. The Dockerfile runs this file by itself, before anything is installed: it needs the
standard library alone.
"""

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class UnknownRequirement(Exception):
    """The table of images names no such service, or a package that the project does not depend on."""


def requirements_of(service: str, pyproject: Path) -> list[str]:
    """Requirement lines with bounds and extras, in the order of the table.

    Raises
    ------
    UnknownRequirement
        See the class; the message names the culprit.
    """
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    declared = [*project["dependencies"], *chain.from_iterable(project.get("optional-dependencies", {}).values())]
    lines = {_normal(line): line for line in declared}
    table = content["tool"]["inference-server"]["images"]
    if service not in table:
        raise UnknownRequirement(f"There is no service {service!r}; there are: {', '.join(table)}.")
    strangers = [name for name in table[service] if _normal(name) not in lines]
    if strangers:
        raise UnknownRequirement(f"{', '.join(strangers)}: in the images table, and no dependency of [project].")
    return [lines[_normal(name)] for name in table[service]]


def _normal(line: str) -> str:
    """The name at a requirement's beginning, as package indexes compare names (PEP 503)."""
    found = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else line


def main(arguments: list[str]) -> int:
    """Print the lines; exit status 1 and a sentence where there are none."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python deployment/requirements.py SERVICE, beside pyproject.toml\n")
        return 1
    try:
        sys.stdout.writelines(f"{line}\n" for line in requirements_of(arguments[0], Path("pyproject.toml")))
    except UnknownRequirement as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

import tomllib
from pathlib import Path

from service_kit.version import VERSION

ROOT = Path(__file__).parents[3]


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION

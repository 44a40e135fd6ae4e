"""What the facade tells of the installation."""

import subprocess
import sys
from importlib.metadata import version

import basic_inference_server
from basic_inference_server import LIB_VER, get_packages


def test_packages_are_listed_with_their_versions_in_columns() -> None:
    lines = get_packages()

    assert sorted(lines) == lines
    assert f"msgspec {version('msgspec')}" in {" ".join(line.split()) for line in lines}
    assert len({line.rindex(" ") for line in lines}) == 1


def test_only_the_wanted_packages_are_listed() -> None:
    assert [line.split()[0] for line in get_packages(["Msgspec", "not-there"])] == ["msgspec"]


def test_the_facades_version_is_that_of_the_software() -> None:
    assert version("inference-server") == LIB_VER


def test_all_public_names_are_there() -> None:
    assert all(hasattr(basic_inference_server, name) for name in basic_inference_server.__all__)


def test_an_endpoints_import_of_the_facade_loads_no_gateway() -> None:
    script = "import sys; from basic_inference_server import FlaskWorker; print(*sys.modules)"

    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert not {"online_gateway", "fastapi", "uvicorn"} & set(ran.stdout.split())

"""What goes into an image: packages by the table of pyproject.toml, without what nobody runs."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deployment.requirements import UnknownRequirement, requirements_of
from deployment.slimming import drop_sections, slim

PYPROJECT = """
[project]
dependencies = ["One_Package>=1", "two[fast]>=2; sys_platform != 'win32'", "three"]
[tool.inference-server.images]
service = ["one-package", "two"]
wrong = ["one-package", "four"]
"""


@pytest.fixture
def pyproject(tmp_path: Path) -> Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(PYPROJECT)
    return path


def test_a_service_gets_its_packages_with_the_projects_bounds(pyproject: Path) -> None:
    assert requirements_of("service", pyproject) == ["One_Package>=1", "two[fast]>=2; sys_platform != 'win32'"]


@pytest.mark.parametrize(("service", "culprit"), [("nobody", "nobody"), ("wrong", "four")])
def test_a_name_that_the_project_does_not_know_is_refused(pyproject: Path, service: str, culprit: str) -> None:
    with pytest.raises(UnknownRequirement, match=culprit):
        requirements_of(service, pyproject)


def test_a_compiled_module_still_loads_without_its_debuggers_tables(tmp_path: Path) -> None:
    origin = find_spec("uvloop.loop")
    assert origin is not None
    assert origin.origin is not None
    shutil.copytree(Path(origin.origin).parent, tmp_path / "uvloop")
    library = tmp_path / "uvloop" / Path(origin.origin).name
    before = library.stat().st_size

    drop_sections(library)

    assert library.stat().st_size < before / 2
    program = "import uvloop; uvloop.new_event_loop().close(); print(uvloop.loop.__file__)"
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == str(library)


def test_what_nobody_runs_goes_and_the_rest_stays(tmp_path: Path) -> None:
    kept = ["a/code.py", "a/data.json", "a/not_elf.so", "a/contest/code.py", "a/f2py/code.py", "onnx/tools/code.py"]
    gone = ["a/tests/test_a.py", "a/testing/b.py", "a/conftest.py", "a/code.pyi", "a/code.pyx", "a/code.c", "a/code.cc"]
    gone += ["a/_simd.cpython-312.so", "a/_umath_tests.cpython-312.so", "a/library.a"]
    gone += ["lib/numpy/f2py/a/code.py", "lib/onnx/reference/code.py", "lib/onnxruntime/tools/code.py"]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")

    slim(tmp_path)

    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        kept
    )
    assert (tmp_path / "a/not_elf.so").read_text() == "text"

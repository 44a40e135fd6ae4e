"""Every Dockerfile and shell script of the repository keeps the usual rules, and images install what their service imports."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from deployment.base_images import postgres, python, rabbitmq, traefik
from deployment.image_names import EXTERNALS, SERVICES
from deployment.requirements import requirements_of
from deployment.variables import VARIABLES
from tests.architecture.sources import ROOT, tree
from tests.support.distributions import needed_by, normal

LINT_SECONDS = 60
NOT_OURS = {"build", "node_modules", "demo_output"}

FOUND_AT_RUN_TIME = {
    "httptools": "uvicorn's parser of requests",
    "uvloop": "uvicorn's event loop",
    "psycopg": "SQLAlchemy's driver, by the scheme of the address",
}
"""Distributions that no module imports."""

ALSO_RUN = {
    "public_api": ("service_kit.healthcheck",),
    "private_api": ("service_kit.healthcheck",),
    "job_consumer": (),
    "online_gateway": ("service_kit.healthcheck",),
    "online_worker": (),
}
"""Modules that the image runs besides its service."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEFAULTS = {variable.name: variable.default for variable in VARIABLES}


def _files() -> Iterator[Path]:
    """The repository's own files, without what tools keep in hidden folders."""
    for top in ROOT.iterdir():
        if top.name in NOT_OURS or (top.is_dir() and (top.name.startswith(".") and top.name != ".ci")):
            continue
        yield from (path for path in (top.rglob("*") if top.is_dir() else [top]) if path.is_file())


def _is_shell_script(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(100)
    return path.suffix == ".sh" or re.match(rb"#!\s*(/usr)?/bin/(env +)?(ba|da)?sh\b", first) is not None


def _said(tool: str, *arguments: str) -> str:
    """What a tool of this virtual environment finds; nothing where all is well."""
    command = [str(Path(sys.prefix, "bin", tool)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LINT_SECONDS, check=False)
    return done.stdout + done.stderr


def test_every_dockerfile_keeps_the_rules_of_hadolint() -> None:
    dockerfiles = [str(path) for path in _files() if path.name == "Dockerfile"]

    assert _said("hadolint", "--no-color", *dockerfiles) == ""
    assert len(dockerfiles) > 10


def test_every_shell_script_keeps_the_rules_of_shellcheck() -> None:
    scripts = [path for path in _files() if _is_shell_script(path)]
    with_shebang = [str(path) for path in scripts if path.read_bytes().startswith(b"#!")]
    run_by_sh = [str(path) for path in scripts if str(path) not in with_shebang]

    assert _said("shellcheck", "--color=never", *with_shebang) == ""
    assert _said("shellcheck", "--color=never", "--shell=sh", *run_by_sh) == ""
    assert with_shebang
    assert run_by_sh


def _reached_modules(service: str) -> Iterator[Path]:
    """The service's modules, and what they import of ours, at any depth; an imported module runs its packages' too."""
    waiting = [*(ROOT / service).rglob("*.py"), *(_path_of(name) for name in ALSO_RUN[service])]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        yield path
        waiting += [_path_of(name) for name in _imported_names(path)]


def _path_of(module: str) -> Path | None:
    """The file of a module of ours."""
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imported_names(path: Path) -> Iterator[str]:
    """All that import statements name; of ``from a import b`` both ``a`` and ``a.b``, which may be a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imported_distributions(service: str) -> set[str]:
    owners = packages_distributions()
    tops = {name.split(".")[0] for path in _reached_modules(service) for name in _imported_names(path)}
    foreign = {top for top in tops if top not in sys.stdlib_module_names and not (ROOT / top).is_dir()}
    return {normal(next(owner for owner in owners[top] if not owner.startswith("types-"))) for top in foreign}


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_installs_what_its_service_imports_and_nothing_else(service: str) -> None:
    """A package too many is one more to audit; one too few is found by the user."""
    lines = requirements_of(service, ROOT / "pyproject.toml")
    table = {normal(line) for line in lines}
    imported = _imported_distributions(service)

    assert imported - needed_by(lines) == set(), "imported, and not in [tool.inference-server.images]"
    assert table - imported - set(FOUND_AT_RUN_TIME) == set(), "in [tool.inference-server.images], and not imported"


def test_every_service_has_its_image() -> None:
    assert set(PROJECT["tool"]["inference-server"]["images"]) == set(SERVICES)


def test_all_say_the_same_version() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))

    assert arguments["VERSION"] == PROJECT["project"]["version"] == DEFAULTS["VERSION"]
    assert arguments["PYTHON_IMAGE"] == DEFAULTS["PYTHON_IMAGE"]


def test_the_names_of_the_drop_ins_are_those_that_are_made() -> None:
    """``image_names`` may not import the modules that make them: it runs where no package is installed."""
    named = {external.variable: external.drop_in for external in EXTERNALS}

    assert named == {
        "PYTHON_IMAGE": python.TAG,
        "TRAEFIK_IMAGE": traefik.TAG,
        "POSTGRES_IMAGE": postgres.TAG,
        "RABBITMQ_IMAGE": rabbitmq.TAG,
    }


def test_images_are_carried_with_the_standard_library_alone() -> None:
    """A host without any network has Python and docker, and none of our packages."""
    reached = [ROOT / "deployment/images.py"]
    late = {"deployment.image_making"}  # imported by the verbs that make images, in their functions
    foreign: set[str] = set()
    for path in reached:
        names = set(_imported_names(path))
        foreign |= {name for name in names if name.split(".")[0] not in {*sys.stdlib_module_names, "deployment"}}
        ours = {_path_of(name) for name in names if not any(name.startswith(module) for module in late)}
        reached += [module for module in ours if module is not None and module not in reached]

    assert foreign == set()
    assert ROOT / "deployment/carrying.py" in reached

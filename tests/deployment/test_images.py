"""The services' images hold what they need and no more, and run locked down."""

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest
from docker.errors import ImageNotFound
from docker.models.containers import Container

from deployment import service_images
from deployment.image_names import SERVICES
from deployment.requirements import requirements_of
from deployment.service_images import build_service, git_revision
from tests.support.distributions import needed_by, normal
from tests.support.images import TEST_IMAGES, TEST_REVISION, VERSION, offline_service_build
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
MEGABYTE = 10**6
TOKEN = "0123456789abcdef0123456789abcdef"

LARGEST_OVER_BASE = {
    "public_api": 31,
    "private_api": 65,
    "job_consumer": 24,
    "online_gateway": 83,  # numpy and the OpenBLAS that it comes with are 50 of them
    "online_worker": 151,  # and here onnxruntime is another 60
}
"""In megabytes; a tenth above what they are."""

HEALTH_CHECKS = {
    "public_api": ["CMD", "python", "-m", "service_kit.healthcheck", "http://127.0.0.1:8000/health/live"],
    "private_api": ["CMD", "python", "-m", "service_kit.healthcheck", "http://127.0.0.1:7000/health/live"],
    "job_consumer": ["CMD", "python", "-m", "job_consumer.alive"],
    "online_gateway": ["CMD", "python", "-m", "service_kit.healthcheck", "http://127.0.0.1:5002/health/live"],
    "online_worker": None,
}

LOOK_INSIDE = """
import importlib.metadata, json, os, pathlib, stat
paths = [path for top in ("/app", "/opt") for path in pathlib.Path(top).rglob("*")]
packages = [found.metadata["Name"].lower().replace("_", "-").replace(".", "-") for found in importlib.metadata.distributions()]
modes = {str(path): path.stat() for path in paths}
changeable = [path for path, found in modes.items() if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)]
closed = [path for path, found in modes.items() if not found.st_mode & stat.S_IROTH]
print(json.dumps({"app": os.listdir("/app"), "top": os.listdir("/"), "paths": list(modes), "packages": packages,
    "changeable": changeable, "closed": closed, "owner of data": os.stat("/data").st_uid}))
"""

IMPORT_ALL = """
import importlib, pkgutil, sys
walked, *others = sys.argv[1:]
for top in walked.split(","):
    for found in pkgutil.walk_packages(importlib.import_module(top).__path__, top + "."):
        if not found.name.endswith(("__main__", "migrations.env")):  # they act when imported
            importlib.import_module(found.name)
for name in others:
    importlib.import_module(name)
"""

FOUND_AT_RUN_TIME = {
    "public_api": ("uvloop", "httptools", "service_kit.healthcheck"),
    "private_api": ("uvloop", "httptools", "psycopg", "service_kit.healthcheck"),
    "job_consumer": (),
    "online_gateway": ("uvloop", "httptools", "service_kit.healthcheck"),
    "online_worker": (),
}

ServiceImage = Callable[[str], str]


class Start(Protocol):
    """Starts a container of an image as the deployment does, locked down; removed after the test."""

    def __call__(self, image: str, *command: str, **options: Any) -> Container: ...


@pytest.fixture
def start(image_engine: docker.DockerClient) -> Iterator[Start]:
    with ExitStack() as started:

        def run(image: str, *command: str, **options: Any) -> Container:
            container = image_engine.containers.run(
                image,
                list(command) or None,
                detach=True,
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                tmpfs={"/tmp": ""},
                **options,
            )
            started.callback(container.remove, force=True, v=True)
            return container

        yield run


def ended(container: Container) -> tuple[int, str]:
    """Exit status and output."""
    status = container.wait(timeout=60)["StatusCode"]
    return status, container.logs().decode()


def configuration(engine: docker.DockerClient, image: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.images.get(image).attrs["Config"]
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_says_what_it_is_and_how_it_is_run(
    image_engine: docker.DockerClient, service_image: ServiceImage, service: str
) -> None:
    found = configuration(image_engine, service_image(service))

    assert found["User"] == "10001:10001"
    assert found["Cmd"] == ["python", "-m", service]
    assert found.get("Healthcheck", {}).get("Test") == HEALTH_CHECKS[service]
    assert found["StopSignal"] == "SIGTERM"
    assert not found["Volumes"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in found["Labels"].items()}
    assert labels["title"] == f"InferenceServer {service}"
    assert labels["version"] == VERSION
    assert labels["revision"] == TEST_REVISION
    assert labels["description"]
    assert {"LOG_FORMAT=json", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"} <= set(found["Env"])


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_small(
    image_engine: docker.DockerClient, service_image: ServiceImage, python_base_image: str, service: str
) -> None:
    size, base = (image_engine.images.get(image).attrs["Size"] for image in (service_image(service), python_base_image))

    assert (size - base) / MEGABYTE < LARGEST_OVER_BASE[service]


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_its_service_and_nothing_else(start: Start, service_image: ServiceImage, service: str) -> None:
    table = requirements_of(service, ROOT / "pyproject.toml")

    status, output = ended(start(service_image(service), "python", "-c", LOOK_INSIDE, network_mode="none"))
    inside = json.loads(output)

    assert status == 0
    assert sorted(inside["app"]) == sorted(["contracts", "service_kit", service])
    assert not {"build", ".git", ".env", "secrets"} & set(inside["top"])
    assert {normal(line) for line in table} <= set(inside["packages"])
    assert set(inside["packages"]) - needed_by(table) == set()
    parts = {part for path in inside["paths"] for part in Path(path).parts}
    assert not parts & {"tests", "testing", ".git", ".env", "secrets", "deployment", "conftest.py"}
    assert inside["owner of data"] == 10001
    assert inside["changeable"] == [], "the service could change its own code"
    assert inside["closed"] == [], "the service could not read it"


@pytest.mark.parametrize("service", SERVICES)
def test_every_module_of_an_image_finds_what_it_imports(
    start: Start, service_image: ServiceImage, service: str
) -> None:
    modules = [service, *FOUND_AT_RUN_TIME[service]]

    status, output = ended(start(service_image(service), "python", "-W", "error", "-c", IMPORT_ALL, *modules))

    assert (status, output) == (0, "")


@pytest.mark.parametrize("service", SERVICES)
def test_without_settings_a_container_ends_and_says_what_is_missing(
    start: Start, service_image: ServiceImage, service: str
) -> None:
    status, output = ended(start(service_image(service)))

    assert status == 2
    lines = output.splitlines()
    token = "WORKER_TOKEN" if service.startswith("online") else "INTERNAL_TOKEN"
    assert f"configuration: {token}: Field required" in lines
    assert [line for line in lines if not line.startswith("configuration: ")] == []


def test_public_api_serves_from_a_read_only_container(start: Start, service_image: ServiceImage) -> None:
    settings = {"INTERNAL_TOKEN": TOKEN, "PRIVATE_API_URL": "http://127.0.0.1:1"}

    container = start(service_image("public_api"), environment=settings)

    _expect_health(container, 8000, HEALTH_CHECKS["public_api"])
    container.stop(timeout=30)
    assert container.wait(timeout=60)["StatusCode"] == 0


def test_private_api_keeps_its_data_in_a_volume_that_it_owns(start: Start, service_image: ServiceImage) -> None:
    settings = {"INTERNAL_TOKEN": TOKEN, "DATABASE_URL": "sqlite:////data/tasks.db", "DATA_DIR": "/data/files"}

    container = start(service_image("private_api"), environment=settings, volumes=["/data"])

    _expect_health(container, 7000, HEALTH_CHECKS["private_api"])
    assert container.exec_run(["stat", "--format", "%U", "/data/tasks.db"]).output.strip() == b"inference"


def test_online_gateway_keeps_its_data_in_a_volume_that_it_owns(start: Start, service_image: ServiceImage) -> None:
    container = start(service_image("online_gateway"), environment={"WORKER_TOKEN": TOKEN}, volumes=["/data"])

    _expect_health(container, 5002, HEALTH_CHECKS["online_gateway"])
    container.stop(timeout=30)
    assert container.wait(timeout=60)["StatusCode"] == 0


def _expect_health(container: Container, port: int, check: list[str]) -> None:
    """The image's own check is content, and so is one from the host."""
    eventually(lambda: container.exec_run(check[1:]).exit_code == 0, within=60, every=0.2)
    container.reload()
    address = container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{address}:{port}/health/live", timeout=10) as answer:
        assert answer.status == 200


def test_what_is_up_to_date_is_not_built_again(
    image_engine: docker.DockerClient, service_image: ServiceImage, python_base_image: str
) -> None:
    tag = service_image("public_api")
    before = image_engine.images.get(tag).id

    built = build_service(image_engine, "public_api", tag, offline_service_build(python_base_image))

    assert not built
    assert image_engine.images.get(tag).id == before


def test_another_revision_takes_the_place_of_the_image_before(
    image_engine: docker.DockerClient, service_image: ServiceImage, python_base_image: str
) -> None:
    service_image("public_api")
    tag = f"{TEST_IMAGES}/rebuilt:1"
    try:
        build_service(image_engine, "public_api", tag, offline_service_build(python_base_image, "one"))
        first = image_engine.images.get(tag).id
        built = build_service(image_engine, "public_api", tag, offline_service_build(python_base_image, "two"))

        assert built
        assert image_engine.images.get(tag).labels["org.opencontainers.image.revision"] == "two"
        with pytest.raises(ImageNotFound):
            image_engine.images.get(first)
    finally:
        image_engine.images.remove(tag, force=True)


@pytest.mark.parametrize(
    ("changed", "is_part"),
    [
        ("public_api/relay.py", True),
        ("contracts/errors.py", True),
        ("constraints.txt", True),
        ("Dockerfile", True),
        ("private_api/main.py", False),
        ("README.md", False),
    ],
)
def test_an_image_follows_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, is_part: bool
) -> None:
    how = offline_service_build("base:1")
    before = service_images._content_of("public_api", how, "id")
    for name in ("contracts", "service_kit", "public_api", "private_api", "deployment"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", "constraints.txt", "pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.setattr(service_images, "ROOT", tmp_path)
    assert service_images._content_of("public_api", how, "id") == before

    with (tmp_path / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")

    assert (service_images._content_of("public_api", how, "id") != before) == is_part


def test_a_folder_without_history_has_no_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == ""

"""Images get from one engine to another as one file, and the .env of the other host learns of them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from deployment.carrying import CarryError, Engine, load, save, tags_in
from deployment.image_names import EXTERNALS, all_tags
from deployment.images import main
from tests.support.docker_engine import MakeImage, OwnEngine

ROOT = Path(__file__).parents[2]
DROP_IN = EXTERNALS[1].drop_in


@pytest.fixture(scope="module")
def other_engine(tmp_path_factory: pytest.TempPathFactory, docker_engine: docker.DockerClient) -> Iterator[str]:
    """The address of the engine of another host, empty at first."""
    with OwnEngine(tmp_path_factory.mktemp("other"), alone=False) as engine:
        yield engine.address


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where .env will be; no variable of a deployment is set."""
    for external in EXTERNALS:
        monkeypatch.delenv(external.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


def test_two_images_arrive_on_an_engine_that_had_none(
    docker_engine: docker.DockerClient, make_image: MakeImage, other_engine: str, tmp_path: Path, env_file: Path
) -> None:
    tags = [make_image("/bin/true"), make_image("/bin/false")]
    file = tmp_path / "images.tar"

    saved = main(["save", str(file), *tags])
    loaded = main(["--engine", other_engine, "load", str(file)])

    assert (saved, loaded) == (0, 0)
    with closing(docker.DockerClient(base_url=other_engine)) as other:
        assert [other.images.get(tag).id for tag in tags] == [docker_engine.images.get(tag).id for tag in tags]
    assert list(tmp_path.glob("*.part")) == []
    assert not env_file.exists(), "no drop-in was among them"


def test_a_host_that_gets_drop_ins_uses_them(
    make_image: MakeImage, other_engine: str, tmp_path: Path, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = make_image("/bin/true")
    file = tmp_path / "images.tar"
    save(Engine(), [tag], file, print)
    load(Engine(other_engine), file, print)
    subprocess.run(["docker", "--host", other_engine, "tag", tag, DROP_IN], check=True, timeout=60)
    save(Engine(other_engine), [DROP_IN], file, print)
    with closing(docker.DockerClient(base_url=other_engine)) as other:
        other.images.remove(DROP_IN)

    assert main(["--engine", other_engine, "load", str(file)]) == 0

    assert f"TRAEFIK_IMAGE={DROP_IN}" in env_file.read_text().splitlines()
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert "also need: python:3.12-slim" in capsys.readouterr().out
    assert Engine(other_engine).sizes([DROP_IN])


def test_an_image_that_is_missing_is_named_before_anything_is_written(make_image: MakeImage, tmp_path: Path) -> None:
    file = tmp_path / "images.tar"

    with pytest.raises(CarryError, match="not on this engine: inference-server-test/missing:1"):
        save(Engine(), [make_image("/bin/true"), "inference-server-test/missing:1"], file, print)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(make_image: MakeImage, tmp_path: Path) -> None:
    with pytest.raises(CarryError, match="No such file or directory"):
        save(Engine(), [make_image("/bin/true")], tmp_path / "nowhere" / "images.tar", print)


def test_a_file_that_was_cut_short_is_not_given_to_the_engine(
    make_image: MakeImage, tmp_path: Path, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "images.tar"
    save(Engine(), [make_image("/bin/true")], file, print)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])

    assert main(["load", str(file)]) == 1

    assert "cut short" in capsys.readouterr().err


def test_a_file_that_was_damaged_on_its_way_is_refused(
    docker_engine: docker.DockerClient, make_image: MakeImage, tmp_path: Path, other_engine: str
) -> None:
    tag = make_image("/bin/true", extra={"here": b"find me" * 1000})
    file = tmp_path / "images.tar"
    save(Engine(), [tag], file, print)
    file.write_bytes(file.read_bytes().replace(b"find mefind me", b"find m?find me", 1))

    with pytest.raises(CarryError, match="docker load failed"):
        load(Engine(other_engine), file, print)

    with closing(docker.DockerClient(base_url=other_engine)) as other, pytest.raises(ImageNotFound):
        other.images.get(tag)


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\0" * 10240])
def test_what_is_no_file_of_images_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "images.tar"
    file.write_bytes(content)

    with pytest.raises(CarryError, match="holds no images"):
        tags_in(file)


@pytest.mark.parametrize("verb", [["save", "images.tar"], ["build"], ["offline"]])
def test_no_engine_is_said_plainly(tmp_path: Path, verb: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployment.images", "--engine", f"unix://{tmp_path}/no.sock", *verb],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert re.search("No Docker engine answers|Cannot connect to the Docker daemon", done.stderr)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_no_registry_gives_is_named_with_the_other_way(
    docker_engine: docker.DockerClient, env_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "public-api", "--python-image", "localhost:9/nowhere:1"]) == 1

    said = capfd.readouterr().err
    assert "localhost:9/nowhere:1 is not on this engine" in said
    assert "make images-offline" in said


def test_everything_that_the_stack_needs_is_carried() -> None:
    environment = {"IMAGES": "registry.site/inference", "VERSION": "7", "POSTGRES_IMAGE": "site/postgres:17"}

    assert set(all_tags(environment)) == {
        "python:3.12-slim",
        "traefik:v3",
        "site/postgres:17",
        "rabbitmq:4-management",
        "registry.site/inference/public-api:7",
        "registry.site/inference/private-api:7",
        "registry.site/inference/job-consumer:7",
        "registry.site/inference/online-gateway:7",
        "registry.site/inference/online-worker:7",
        "inference-server/ct-body-mask:1",
        "inference-server/ocr:1",
        "inference-server/pass-through:1",
    }

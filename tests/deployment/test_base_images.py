"""The images that stand in for the official ones where no registry is reached: made here, and used as the deployment does."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from deployment.base_images import UPDATES_LABEL, BaseImageError, Mirrors, Updates, engine_images
from deployment.base_images.debian_tree import DebianRecipe, ensure_debian_image
from deployment.base_images.debian_updates import security_archives_of_this_machine
from tests.support.base_images import StartContainer, ended, log_of, run_in
from tests.support.docker_engine import root_tar
from tests.support.requirements import missing
from tests.support.waiting import eventually


class TinyRecipe:
    """Makes an image of busybox under a tag of its own, and counts how often."""

    def __init__(self, engine: docker.DockerClient, tag: str) -> None:
        self.tag = tag
        self.made = 0
        self._engine = engine

    def ensure(self, identity: str = "first", *settings: str) -> str:
        return engine_images.ensure_image(self._engine, self.tag, identity, settings, self._make_files)

    def _make_files(self, folder: Path) -> engine_images.ImageFiles:
        self.made += 1
        archive = folder / "root.tar"
        archive.write_bytes(root_tar({}))
        return engine_images.ImageFiles(archive)


@pytest.fixture
def tiny_recipe(image_engine: docker.DockerClient, installation: str) -> Iterator[TinyRecipe]:
    recipe = TinyRecipe(image_engine, f"inference-server-test/base-{installation}:1")
    yield recipe
    image_engine.images.remove(recipe.tag, force=True)


def test_an_image_is_made_once_per_recipe(tiny_recipe: TinyRecipe, image_engine: docker.DockerClient) -> None:
    tiny_recipe.ensure("first")
    first = image_engine.images.get(tiny_recipe.tag).id

    tiny_recipe.ensure("first")
    assert (tiny_recipe.made, image_engine.images.get(tiny_recipe.tag).id) == (1, first)

    tiny_recipe.ensure("second")
    assert tiny_recipe.made == 2
    assert image_engine.images.get(tiny_recipe.tag).id != first
    image_engine.images.remove(first)


def test_an_image_has_the_settings_of_its_recipe(
    tiny_recipe: TinyRecipe, image_engine: docker.DockerClient, start_container: StartContainer
) -> None:
    tiny_recipe.ensure("first", "ENV PATH=/bin", 'ENTRYPOINT ["echo", "given:"]', "STOPSIGNAL SIGINT")

    assert ended(start_container(tiny_recipe.tag, ["words"])) == (0, "given: words\n")
    assert image_engine.images.get(tiny_recipe.tag).attrs["Config"]["StopSignal"] == "SIGINT"


def test_two_who_want_an_image_at_once_make_it_once(tiny_recipe: TinyRecipe) -> None:
    together = threading.Barrier(2)

    def want() -> str:
        together.wait(60)
        return tiny_recipe.ensure()

    with ThreadPoolExecutor(2) as threads:
        wanted = [threads.submit(want) for _ in range(2)]

    assert [one.result(60) for one in wanted] == [tiny_recipe.tag] * 2
    assert tiny_recipe.made == 1


def test_a_setting_that_the_engine_refuses_is_named(tiny_recipe: TinyRecipe) -> None:
    with pytest.raises(BaseImageError, match=rf"refused the image {tiny_recipe.tag}: .*NONSENSE"):
        tiny_recipe.ensure("first", "NONSENSE yes")

    tiny_recipe.ensure("first")


def test_a_failed_bootstrap_says_what_it_said_and_how_to_name_a_mirror(image_engine: docker.DockerClient) -> None:
    recipe = DebianRecipe("inference-server-test/no-such:1", "bookworm", ("bash",), settings=())

    with pytest.raises(BaseImageError, match=r"(?s)mirror that this machine reaches with --mirror.*127\.0\.0\.1"):
        ensure_debian_image(image_engine, recipe, mirrors=Mirrors("http://127.0.0.1:9/archive"))


def test_the_python_image_has_pip_venv_and_certificates(
    python_base_image: str, start_container: StartContainer
) -> None:
    script = (
        "python -m pip --version && python -m venv --without-pip /tmp/venv && python -c '"
        'import ssl; print("authorities:", ssl.create_default_context().cert_store_stats()["x509_ca"] > 50)\''
    )

    status, log = ended(start_container(python_base_image, ["sh", "-c", script]))

    assert (status, log.splitlines()[-1]) == (0, "authorities: True"), log


@pytest.mark.parametrize(
    "image", ["python_base_image", "postgres_image", "rabbitmq_image"], ids=["python", "postgres", "rabbitmq"]
)
def test_nothing_of_the_machine_that_made_an_image_stays_in_it(
    image: str, request: pytest.FixtureRequest, start_container: StartContainer
) -> None:
    """Debian's installation makes keys, and debootstrap copies names: shared by all who use the image, or of no use to them."""
    script = (
        "cat /etc/hostname; ls -A /etc/ssl/private /var/lib/rabbitmq /var/lib/postgresql/17 /root/.ssh "
        "/etc/ssh /var/cache/apt/archives/*.deb 2>/dev/null; true"
    )
    tag = request.getfixturevalue(image)

    container = start_container(tag, entrypoint=["sh", "-c", script], hostname="its-own", cap_add=[])

    status, log = ended(container)
    said = [line for line in log.splitlines() if line and not line.endswith(":")]
    assert (status, said) == (0, ["its-own"])


@pytest.mark.parametrize(
    "image", ["python_base_image", "postgres_image", "rabbitmq_image"], ids=["python", "postgres", "rabbitmq"]
)
def test_images_of_debian_packages_have_its_security_updates(
    image: str, request: pytest.FixtureRequest, image_engine: docker.DockerClient
) -> None:
    if not security_archives_of_this_machine():
        missing("this machine's apt has no source of security updates")

    labels = image_engine.images.get(request.getfixturevalue(image)).labels

    assert labels[UPDATES_LABEL] == Updates.SECURITY.value


def test_traefik_takes_flags_and_subcommands_as_any_user_on_a_read_only_file_system(
    traefik_image: str, start_container: StartContainer
) -> None:
    bare = {"read_only": True, "user": "10001:10001", "cap_add": []}

    status, log = ended(start_container(traefik_image, ["version"], **bare))
    assert status == 0
    assert "Version:      3." in log

    running = start_container(traefik_image, ["--ping=true", "--entrypoints.traefik.address=:8082"], **bare)
    ask = ("traefik", "healthcheck", "--ping=true", "--entrypoints.traefik.address=127.0.0.1:8082")
    eventually(lambda: running.exec_run(list(ask)).exit_code == 0, within=30, every=0.2)
    assert run_in(running, *ask).startswith("OK")

    running.stop(timeout=30)
    assert running.wait(timeout=30)["StatusCode"] == 0, log_of(running)


def test_the_traefik_image_trusts_the_authorities_that_this_machine_trusts(
    traefik_image: str, start_container: StartContainer
) -> None:
    container = start_container(traefik_image, ["version"])

    chunks, _ = container.get_archive("/etc/ssl/certs/ca-certificates.crt")
    assert b"".join(chunks).count(b"BEGIN CERTIFICATE") > 50

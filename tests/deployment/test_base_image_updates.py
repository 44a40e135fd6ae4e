"""Images made of Debian packages carry Debian's security updates, and say so where they could not have them."""

import logging
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import docker
import pytest

from deployment.base_images import UPDATES_LABEL, BaseImageError, Mirrors, Updates, engine_images
from deployment.base_images.debian_tree import DebianRecipe, ensure_debian_image
from deployment.base_images.debian_updates import bring_up_to_date, security_archives_of_this_machine
from deployment.images import main
from tests.support.base_images import StartContainer, containers_of, ended
from tests.support.docker_engine import root_tar
from tests.support.requirements import missing

SUITE = "bookworm"
KEYRING = "usr/share/keyrings/debian-archive-keyring.gpg"
PASSWORD = f"password-{uuid4().hex}"
NOBODY = "http://127.0.0.1:9/security"


@pytest.fixture(scope="module")
def archive() -> str:
    """The archive of security updates that this machine's apt knows."""
    known = security_archives_of_this_machine()
    if not known:
        missing("this machine's apt has no source of security updates")
    return known[0]


@pytest.fixture(scope="module")
def fresh_image(image_engine: docker.DockerClient, archive: str) -> Iterator[str]:
    """An image of a minute ago, so that it is compared with what the archive offers now."""
    tag = f"inference-server-test/updates-{uuid4().hex[:8]}:1"
    recipe = DebianRecipe(tag, SUITE, ("openssl",), settings=('CMD ["bash"]',))
    with_credentials = archive.replace("://", f"://reader:{PASSWORD}@", 1)
    try:
        ensure_debian_image(image_engine, recipe, mirrors=Mirrors(security=with_credentials))
    except BaseImageError as error:
        missing(f"no base image: {error}")
    yield tag
    image_engine.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def tree(
    image_engine: docker.DockerClient, fresh_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The file tree of the image, in a folder."""
    root = tmp_path_factory.mktemp("tree")
    with (
        containers_of(image_engine) as start,
        subprocess.Popen(["tar", "-x", "-C", str(root)], stdin=subprocess.PIPE) as unpacking,
    ):
        assert unpacking.stdin is not None
        for chunk in start(fresh_image).export():
            unpacking.stdin.write(chunk)
    assert unpacking.returncode == 0
    yield root
    shutil.rmtree(root)


def packages_of(text: str) -> dict[str, str]:
    """The newest version of each package in an archive's list of packages."""
    found: dict[str, str] = {}
    for entry in re.finditer(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", text, re.MULTILINE):
        name, version = entry.groups()
        if name not in found or is_at_least(version, found[name]):
            found[name] = version
    return found


def is_at_least(version: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", version, "ge", other], check=False, timeout=30).returncode == 0


def offered_by(archive: str, folder: Path) -> dict[str, str]:
    """What the archive offers now, read from its files."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
    file = folder / "Packages.xz"
    url = f"{archive.rstrip('/')}/dists/{SUITE}-security/main/binary-{architecture}/Packages.xz"
    subprocess.run(["/usr/lib/apt/apt-helper", "download-file", url, str(file)], check=True, timeout=120)
    return packages_of(lzma.decompress(file.read_bytes()).decode())


def test_an_image_has_what_the_security_archive_offers(
    fresh_image: str, archive: str, start_container: StartContainer, tmp_path: Path
) -> None:
    query = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\\n"]
    installed = dict(line.split() for line in ended(start_container(fresh_image, query))[1].splitlines())

    offered = {name: version for name, version in offered_by(archive, tmp_path).items() if name in installed}

    assert "openssl" in offered
    behind = {
        name: (installed[name], version)
        for name, version in offered.items()
        if not is_at_least(installed[name], version)
    }
    assert behind == {}


def test_an_image_says_that_it_has_security_updates_and_where_further_packages_come_from(
    fresh_image: str, image_engine: docker.DockerClient, archive: str, start_container: StartContainer
) -> None:
    """Packages of the main archive alone would not fit those of the image."""
    sources = ended(start_container(fresh_image, ["cat", "/etc/apt/sources.list"]))[1]

    assert image_engine.images.get(fresh_image).labels[UPDATES_LABEL] == "security"
    assert f"deb [signed-by=/{KEYRING}] {archive} {SUITE}-security main" in sources.splitlines()


def test_nothing_that_updating_needed_stays_in_an_image(fresh_image: str, start_container: StartContainer) -> None:
    script = (
        f"grep --recursive --files-with-matches --ignore-case --extended-regexp '{PASSWORD}|proxy::|_proxy=' /etc /var; "
        "ls -A /usr/sbin/policy-rc.d /var/lib/apt/lists /var/cache/apt 2>/dev/null; true"
    )

    status, log = ended(start_container(fresh_image, ["sh", "-c", script]))

    said = [line for line in log.splitlines() if line and not line.endswith(":")]
    assert (status, said) == (0, [])


def test_an_archive_that_does_not_answer_is_named_with_what_to_do(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        got = bring_up_to_date(tree, SUITE, NOBODY)

    assert got is Updates.NONE
    assert NOBODY in caplog.text
    assert "--security-mirror URL" in caplog.text
    assert "-security" not in (tree / "etc/apt/sources.list").read_text()


def test_a_machine_that_knows_no_archive_says_so(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tmp_path / "apt.conf"
    settings.write_text('Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "/dev/null";')
    monkeypatch.setenv("APT_CONFIG", str(settings))

    with caplog.at_level(logging.WARNING):
        got = bring_up_to_date(tree, SUITE)

    assert got is Updates.NONE
    assert "apt has no source of them" in caplog.text
    assert "--security-mirror URL" in caplog.text


def test_an_archive_that_is_not_signed_by_debian_is_refused(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    suite = tree / "archive" / "dists" / f"{SUITE}-security"
    suite.mkdir(parents=True)
    (suite / "Release").write_text(f"Origin: Debian\nCodename: {SUITE}-security\nComponents: main\n")

    with caplog.at_level(logging.WARNING):
        got = bring_up_to_date(tree, SUITE, f"file:{tree}/archive")

    assert got is Updates.NONE
    assert "not signed" in caplog.text


@pytest.mark.parametrize(
    ("updates", "words"),
    [("security", "with Debian's security updates"), ("none", "WITHOUT SECURITY UPDATES")],
)
def test_the_list_of_images_shows_what_updates_each_has(
    image_engine: docker.DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    updates: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    tag = f"inference-server-test/updates-{uuid4().hex[:8]}:1"

    def files(folder: Path) -> engine_images.ImageFiles:
        (folder / "root.tar").write_bytes(root_tar({}))
        return engine_images.ImageFiles(folder / "root.tar", {UPDATES_LABEL: updates})

    engine_images.ensure_image(image_engine, tag, "any", (), files)
    try:
        assert main(["save", "images.tar", tag]) == 0
        assert main(["load", "images.tar"]) == 0
    finally:
        image_engine.images.remove(tag, force=True)

    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(tag))
    assert line.endswith(f" MB  {words}")

"""A real Docker engine for tests, a tiny image that needs no registry, and runners whose every trace is checked.

``tiny_image`` runs ``/input/run.sh`` with a static busybox: what a test model does travels in the task's zip.
"""

import io
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol, Self

import docker
import pytest
from docker.errors import DockerException

from contracts.archives import ArchiveLimits
from job_consumer.runner.docker import DockerRunner
from job_consumer.runner.docker.labels import INSTALLATION, KIND, Kind
from tests.support.requirements import missing
from tests.support.waiting import eventually

_BUSYBOX = Path("/bin/busybox")
_APPLETS = (
    *(
        "cat",
        "chmod",
        "chown",
        "cp",
        "dd",
        "df",
        "echo",
        "env",
        "false",
        "find",
        "grep",
        "head",
        "id",
        "ip",
        "kill",
        "ln",
    ),
    *("ls", "mkdir", "mkfifo", "mount", "mv", "nc", "od", "printf", "ps", "rm", "seq", "sh", "sleep", "sort", "stat"),
    *("sync", "tail", "test", "timeout", "touch", "tr", "true", "wc", "wget", "yes"),
)

RUN_INPUT_SCRIPT = ("/bin/sh", "/input/run.sh")


class MakeImage(Protocol):
    """Makes a tiny image with the given command and user; its tag."""

    def __call__(self, *command: str, user: str = "", extra: dict[str, bytes] | None = None) -> str: ...


class MakeDockerRunner(Protocol):
    """Makes a runner of this test's installation; closed after the test."""

    def __call__(self, scratch: Path, mode: str = "auto", **overrides: Any) -> DockerRunner: ...


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """The running engine, else one of our own for this session, else the test is skipped (or fails in CI)."""
    with ExitStack() as started:
        engine = running_engine() or own_engine(tmp_path_factory.mktemp("dockerd"), started)
        with closing(engine):
            yield engine


@pytest.fixture(scope="session")
def make_image(docker_engine: docker.DockerClient) -> Iterator[MakeImage]:
    """Imports tiny images, and removes them when the session ends."""
    if not _BUSYBOX.exists():
        missing("no /bin/busybox: install the Debian package busybox-static")
    made: list[str] = []
    number = itertools.count(1)
    session = secrets.token_hex(4)

    def make(*command: str, user: str = "", extra: dict[str, bytes] | None = None) -> str:
        repository = f"inference-server-test/tiny-{session}-{next(number)}"
        words = ", ".join('"' + word.replace('"', '\\"') + '"' for word in command)
        changes = ["ENV PATH=/bin", *([f"CMD [{words}]"] if command else []), *([f"USER {user}"] if user else [])]
        docker_engine.api.import_image_from_data(root_tar(extra or {}), repository, "1", changes=changes)
        made.append(f"{repository}:1")
        return made[-1]

    yield make
    for tag in made:
        docker_engine.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def tiny_image(make_image: MakeImage) -> str:
    """Tag of an image that runs the task's own ``run.sh``."""
    return make_image(*RUN_INPUT_SCRIPT)


@pytest.fixture
def installation(docker_engine: docker.DockerClient) -> Iterator[str]:
    """The id of this test's platform; fails the test when something of a task is left on the engine."""
    name = "test-" + secrets.token_hex(6)
    yield name
    left = remains(docker_engine, name)
    kept = [what for what in left if what.startswith((Kind.MODEL, Kind.MODEL_READY))]
    _remove_all(docker_engine, name)
    assert sorted(set(left) - set(kept)) == [], "left on the engine after the test"


@pytest.fixture
def make_docker_runner(installation: str) -> Iterator[MakeDockerRunner]:
    """Makes runners, each with a consumer id of its own unless told otherwise."""
    with ExitStack() as opened:

        def make(scratch: Path, mode: str = "auto", **overrides: Any) -> DockerRunner:
            arguments: dict[str, Any] = {
                "scratch": scratch,
                "mode": mode,
                "installation": installation,
                "consumer": "consumer-" + secrets.token_hex(3),
                "archive_limits": ArchiveLimits(),
                "max_output_bytes": 2**30,
            }
            return opened.enter_context(closing(DockerRunner(**(arguments | overrides))))

        yield make


def remains(engine: docker.DockerClient, installation: str) -> list[str]:
    """``kind name`` of every container and volume of the installation."""
    chosen = {"label": f"{INSTALLATION}={installation}"}
    containers = [
        f"{found['Labels'].get(KIND)} container {found['Names'][0]}"
        for found in engine.api.containers(all=True, filters=chosen)
    ]
    volumes = [
        f"{found['Labels'].get(KIND)} volume {found['Name']}"
        for found in engine.api.volumes(filters=chosen)["Volumes"] or []
    ]
    return containers + volumes


def _remove_all(engine: docker.DockerClient, installation: str) -> None:
    chosen = {"label": f"{INSTALLATION}={installation}"}
    for container in engine.api.containers(all=True, filters=chosen):
        engine.api.remove_container(container["Id"], force=True, v=True)
    for volume in engine.api.volumes(filters=chosen)["Volumes"] or []:
        engine.api.remove_volume(volume["Name"])


def engine_socket() -> Path | None:
    """Where the engine of the environment listens on this machine; None where it is asked over a network."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return Path(address.removeprefix("unix://")) if address.startswith("unix://") else None


def running_engine() -> docker.DockerClient | None:
    """The engine of the environment, if one answers."""
    path = engine_socket()
    if path is not None:  # asked first: the SDK drops the socket of a refused connection without closing it
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) != 0:
                return None
    engine = docker.from_env()
    try:
        engine.ping()
    except DockerException:
        engine.close()
        return None
    return engine


def own_engine(folder: Path, started: ExitStack) -> docker.DockerClient:
    """Start an engine that lives as long as ``started``; the environment's DOCKER_HOST points to it meanwhile."""
    own = started.enter_context(OwnEngine(folder, alone=True))
    patch = started.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("DOCKER_HOST", own.address)
    return docker.from_env()


class OwnEngine:
    """An engine of the test's own; it ends with the context, or by :meth:`stop`.

    Beside another one it needs a network namespace of its own: the two would fight over the bridge docker0, and with
    ``--bridge=none`` the second removes the first one's.
    """

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self.address = f"unix://{folder}/docker.sock"
        self._folder = folder
        self._namespace = [] if alone else ["unshare", "--net"]
        self._log = folder / "dockerd.log"

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            missing("starting a Docker engine takes root and the Debian package docker.io")
        places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        options = [word for option, name in places.items() for word in (option, f"{self._folder}/{name}")]
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(
                [*self._namespace, "dockerd", *options, "-H", self.address],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            eventually(self._answers, within=60, every=0.1)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it as a service manager does; it ends its containers itself."""
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(60)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait(60)
        self._unmount()

    def _unmount(self) -> None:
        """Take away the network namespaces that it leaves mounted: with them its folder could not be removed."""
        places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in reversed(places):
            if place.startswith(f"{self._folder}/"):
                subprocess.run(["umount", "--lazy", place], check=False, timeout=30)  # it may go by itself

    def _answers(self) -> bool:
        if self._daemon.poll() is not None:
            missing(f"dockerd ended at once: {self._log.read_text()[-500:]}")
        if not Path(self.address.removeprefix("unix://")).exists():
            return False
        try:
            with closing(docker.DockerClient(base_url=self.address)) as client:
                return bool(client.ping())
        except DockerException:
            return False


def root_tar(extra: dict[str, bytes]) -> bytes:
    """A root file system: busybox, its applets, two users, and the given files."""
    files = {
        "bin/busybox": _BUSYBOX.read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/:/bin/sh\nmodel:x:1234:1234:model:/:/bin/sh\n",
        "etc/group": b"root:x:0:\nmodel:x:1234:\n",
        **extra,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            info.mode = 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(content))
        for applet in _APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type = tarfile.SYMTYPE
            info.linkname = "busybox"
            tar.addfile(info)
    return buffer.getvalue()

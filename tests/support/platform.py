"""Starts the platform's services as the real processes that they are, each with its own log, and stops them all."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil
import pytest

from inference_client import InferenceClient
from tests.support.ports import free_port
from tests.support.waiting import eventually

START_SECONDS = 60
STOP_SECONDS = 30
LEASE_SECONDS = 4.0

Environment = dict[str, str]


class Service:
    """One process of the platform."""

    def __init__(self, name: str, module: str, environment: Environment, log: Path) -> None:
        self.name = name
        self.log_path = log
        self._command = [sys.executable, "-m", module]
        self._environment = environment
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "DOCKER_HOST") if name in os.environ}
        temporary = self.log_path.with_suffix(".tmp")  # not the machine's: who is killed clears nothing up
        temporary.mkdir(exist_ok=True)
        base["TMPDIR"] = str(temporary)
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._command, env={**base, **self._environment}, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def rss(self) -> int:
        """Resident memory, in bytes."""
        size: int = psutil.Process(self.process.pid).memory_info().rss
        return size

    def restart(self) -> None:
        assert self.process.poll() is not None, "it still runs"
        self.process = self._start()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self, within: float = STOP_SECONDS) -> int:
        """SIGTERM, and wait for the end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {within} s:\n{self.log[-4000:]}") from None


class Platform:
    """private_api and public_api, started by :meth:`start`; consumers as wanted."""

    def __init__(self, folder: Path, database_url: str | None = None, rabbitmq_url: str | None = None) -> None:
        self.folder = folder
        self.token = secrets.token_urlsafe(16)
        self.database_url = database_url or f"sqlite:///{folder / 'platform.db'}"
        self.rabbitmq_url = rabbitmq_url
        self.public_port, self.private_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.public_port}"
        self.private_url = f"http://127.0.0.1:{self.private_port}"
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.private: Service
        self.public: Service
        self.consumers: list[Service] = []
        self._started: list[Service] = []

    def start(self, **environment: str) -> Self:
        """Start both APIs and wait until they are ready; the environment goes to both."""
        shared = {"INTERNAL_TOKEN": self.token, "LOG_FORMAT": "json", **environment}
        broker = {"RABBITMQ_URL": self.rabbitmq_url} if self.rabbitmq_url else {}
        self.private = self._service(
            "private_api",
            "private_api",
            {
                "LEASE_SECONDS": str(LEASE_SECONDS),
                **shared,
                **broker,
                "DATABASE_URL": self.database_url,
                "DATA_DIR": str(self.data),
                "PORT": str(self.private_port),
            },
        )
        self.public = self._service(
            "public_api",
            "public_api",
            {
                "ALLOW_PUBLIC_POST_MODEL": "true",
                **shared,
                "PRIVATE_API_URL": self.private_url,
                "PORT": str(self.public_port),
            },
        )
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until public_api says that all it needs answers."""
        eventually(self.is_ready, START_SECONDS)

    def is_ready(self) -> bool:
        for service in (self.private, self.public):
            assert service.process.poll() is None, f"{service.name} ended:\n{service.log[-4000:]}"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health/ready", timeout=5).is_success
        return False

    def start_consumer(self, runner: str, **environment: str) -> Service:
        """Start one more consumer; models of the process runner come from MODELS_FOLDER."""
        number = len(self.consumers)
        broker = {"RABBITMQ_URL": self.rabbitmq_url} if self.rabbitmq_url else {}
        service = self._service(
            f"consumer-{number}",
            "job_consumer",
            {
                "INTERNAL_TOKEN": self.token,
                "LOG_FORMAT": "json",
                "LOG_LEVEL": "DEBUG",
                "PRIVATE_API_URL": self.private_url,
                "SCRATCH_DIR": str(self.folder / f"scratch-{number}"),
                "RUNNER": runner,
                "SWEEP_SECONDS": "1",
                "DRAIN_SECONDS": "5",
                **broker,
                **environment,
            },
        )
        self.consumers.append(service)
        eventually(lambda: "consumer_ready" in service.log or service.process.poll() is not None, START_SECONDS)
        assert service.process.poll() is None, service.log[-4000:]
        return service

    def client(self) -> InferenceClient:
        return InferenceClient(self.url)

    def internal(self, method: str, path: str, **arguments: object) -> httpx.Response:
        """One call to private_api, as a consumer makes it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, self.private_url + path, headers=headers, timeout=30, **arguments)  # type: ignore[arg-type]

    def _service(self, name: str, module: str, environment: Environment) -> Service:
        service = Service(name, module, environment, self.folder / f"{name}.log")
        self._started.append(service)
        return service

    def close(self) -> None:
        """Stop everything, consumers first; says so when something does not stop."""
        troubles = []
        for service in reversed(self._started):
            try:
                service.stop()
            except AssertionError as error:
                troubles.append(str(error))
        assert not troubles, "\n".join(troubles)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for service in self._started:
                sys.stderr.write(f"--- {service.name}\n{service.log[-3000:]}\n")
        self.close()


PlatformMaker = Callable[..., Platform]


@pytest.fixture
def make_platform(tmp_path: Path) -> Iterator[PlatformMaker]:
    """Makes started platforms; each is stopped at the test's end."""
    made: list[Platform] = []

    def make(database_url: str | None = None, rabbitmq_url: str | None = None, **environment: str) -> Platform:
        folder = tmp_path / f"platform-{len(made)}"
        folder.mkdir()
        platform = Platform(folder, database_url, rabbitmq_url)
        made.append(platform)
        return platform.start(**environment)

    yield make
    for platform in made:
        platform.close()

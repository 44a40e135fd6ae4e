"""A real gateway with real workers, each a process of its own, in a folder of the test.

    with OnlinePlatform(tmp_path, {"echo": {"ENGINE": "echo", "NR_WORKERS": 2}}) as platform:
        platform.http.get("/health/ready")

Endpoint modules go to ``platform.modules`` (``write_module``) before it starts, or are named by MODULE.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from tests.support.ports import free_port
from tests.support.waiting import eventually

WORKER_TOKEN = "a-worker-token-for-tests"
ADMIN_TOKEN = "an-admin-token-for-tests"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}

_NOT_INHERITED = {"WORKER_TOKEN", "ADMIN_TOKEN", "ENDPOINTS_FILE", "DATA_DIR", "HOST", "PORT", "WORKER_PORT"}


class OnlinePlatform:
    """One gateway; it is started on entry, and ended with all its workers on exit.

    ``endpoints`` is CONFIG_ENDPOINTS; ``whole`` gives the other keys of the file, ``settings`` environment variables.
    """

    def __init__(
        self,
        folder: Path,
        endpoints: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        whole: Mapping[str, Any] | None = None,
        waits_until_ready: bool = True,
        **settings: object,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.modules = folder / "endpoints"
        self.file = folder / "endpoints.json"
        self.log_file = folder / "gateway.log"
        self.admin_token = ADMIN_TOKEN
        self.worker_token = WORKER_TOKEN
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.worker_port = 0
        self._waits = waits_until_ready
        self._settings = {name: str(value) for name, value in settings.items()}
        self._others: list[subprocess.Popen[bytes]] = []
        self._http: httpx.Client | None = None
        self.modules.mkdir(parents=True, exist_ok=True)
        self._token_file = folder / "token"
        self._token_file.write_text(WORKER_TOKEN)
        self.configure(endpoints or {}, **(whole or {}))

    def configure(self, endpoints: Mapping[str, Mapping[str, Any]], **whole: Any) -> None:
        """Write the file of endpoints; the next start reads it."""
        self.file.write_text(json.dumps({**whole, "CONFIG_ENDPOINTS": endpoints}))

    def write_module(self, name: str, source: str) -> Path:
        """An endpoint's module, where the gateway looks for it."""
        path = self.modules / f"{name}.py"
        path.write_text(source)
        return path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> httpx.Client:
        """Speaks to the gateway; follows it over restarts, which keep the port."""
        if self._http is None:
            self._http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        return self._http

    @property
    def worker_socket(self) -> Path:
        return self.data_dir / "workers.sock"

    @property
    def log(self) -> str:
        """What gateway and local workers wrote so far, over all starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def events(self, action: str) -> list[dict[str, Any]]:
        """The gateway's log lines of this action."""
        return [event for event in _events(self.log) if event.get("action") == action]

    def start(self) -> None:
        """Start the gateway; returns when it listens, and when it is ready if the platform waits for that."""
        self.start_unready()
        if self._waits:
            self.wait_ready()

    def start_unready(self) -> None:
        """Start the gateway; returns when it listens."""
        starts = len(self.events("online_gateway_starts"))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "online_gateway"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: len(self.events("online_gateway_starts")) > starts or self._has_ended(), 60)
        assert not self._has_ended(), self.log
        event = self.events("online_gateway_starts")[-1]
        self.worker_port = (event.get("worker_address") or (None, 0))[1]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        return {
            **inherited,
            "DATA_DIR": str(self.data_dir),
            "WORKER_TOKEN_FILE": str(self._token_file),
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "ENDPOINTS_FILE": str(self.file),
            "PORT": str(self.port),
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "json",
            **self._settings,
        }

    def _has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def readiness(self) -> dict[str, Any]:
        """The body of ``/health/ready``; empty while nothing answers."""
        with contextlib.suppress(httpx.TransportError):
            body: dict[str, Any] = self.http.get("/health/ready").json()
            return body
        return {}

    def is_ready(self) -> bool:
        """Whether ``/health/ready`` says 200."""
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/health/ready").status_code == 200
        return False

    def wait_ready(self, within: float = 60) -> None:
        """Wait until ``/health/ready`` says 200."""
        try:
            eventually(lambda: self.is_ready() or self._has_ended(), within)
            assert not self._has_ended(), "the gateway ended"
        except AssertionError:
            raise AssertionError(f"not ready: {self.readiness()}\n{self.log}") from None

    def state_of(self, endpoint: str) -> str:
        """The endpoint's state as readiness shows it; '' while nothing answers."""
        return str(self.readiness().get("endpoints", {}).get(endpoint, {}).get("state", ""))

    def wait_workers(self, endpoint: str, count: int, within: float = 60) -> None:
        """Wait until the endpoint is ready and exactly so many workers of it are connected."""

        def has_them() -> bool:
            shown = self.readiness().get("endpoints", {}).get(endpoint, {})
            return shown.get("state") == "ready" and shown.get("workers") == count

        try:
            eventually(has_them, within)
        except AssertionError:
            raise AssertionError(f"not {count} workers: {self.readiness()}\n{self.log}") from None

    def workers(self, pool: str | None = None) -> list[psutil.Process]:
        """The local worker processes that live, of one pool or of all."""
        return [process for _, process in self.workers_by_id(pool)]

    def workers_by_id(self, pool: str | None = None) -> list[tuple[str, psutil.Process]]:
        """The same, with their ids."""
        path = self.data_dir / "local_workers.json"
        entries = json.loads(path.read_text()) if path.exists() else []
        return [
            (entry["worker_id"], process)
            for entry in entries
            if pool in {None, entry["pool"]} and (process := _alive(entry)) is not None
        ]

    def add_worker(self, endpoint: str, *gateways: str, **settings: object) -> "subprocess.Popen[bytes]":
        """A worker that dials in by itself, as one of another host does; it ends with the platform."""
        environment = {
            **{name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
            "ONLINE_GATEWAY": ",".join(gateways or (f"unix://{self.worker_socket}",)),
            "ENDPOINT": endpoint,
            "WORKER_TOKEN_FILE": str(self._token_file),
            "LOG_FORMAT": "json",
            **{name: str(value) for name, value in settings.items()},
        }
        with self.log_file.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "online_worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._others.append(worker)
        return worker

    def kill(self) -> None:
        """``kill -9`` for the gateway; its workers live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def terminate(self, within: float = 60) -> int:
        """SIGTERM for the gateway; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def restart(self) -> None:
        """End it in good order, unless it has ended, and start it again on the same port."""
        if not self._has_ended():
            self.terminate()
        self.start()

    def stop(self) -> None:
        """End the gateway and every worker that is left."""
        for worker in self._others:
            if worker.poll() is None:
                worker.kill()
            worker.wait(30)
        try:
            if not self._has_ended():
                self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not stop:\n{self.log}") from None
        finally:
            left = self.workers()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=30)
            if self._http is not None:
                self._http.close()
                self._http = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.log)
        self.stop()


def _alive(entry: Mapping[str, Any]) -> psutil.Process | None:
    if entry["pid"] is None:  # it is about to be started
        return None
    try:
        process = psutil.Process(entry["pid"])
        is_it = abs(process.create_time() - entry["create_time"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if is_it else None


def _events(log: str) -> Iterator[dict[str, Any]]:
    for line in log.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)

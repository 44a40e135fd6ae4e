"""The servers, images and folders that measurements share; each is started at its first use and stopped at the end."""

import json
import secrets
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import docker

from benchmarks.bare_container import IMAGE_COMMAND, INPUT_FILE, OUTPUT_FOLDER
from benchmarks.results import Effort
from contracts.queue import ALL_QUEUES
from tests.support.docker_engine import own_engine, root_tar, running_engine
from tests.support.platform import Platform, Service
from tests.support.ports import free_port
from tests.support.postgres import PostgresCluster
from tests.support.rabbitmq import RabbitNode, RabbitQueues, server_binary
from tests.support.waiting import eventually

BROKERED = "RabbitMQ, PostgreSQL"
POLLED = "long poll, SQLite"
SHAPES = (BROKERED, POLLED)

MODEL = "copies-its-input"
SMALL_INPUT = b"a few bytes, for nothing but the platform's own time is to be measured\n"


class Surroundings:
    """Use it in a ``with`` statement."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @cached_property
    def folder(self) -> Path:
        """On the disk that holds temporary files; the databases and all stored files are below it."""
        return Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))

    @cached_property
    def engine(self) -> docker.DockerClient:
        """The machine's Docker engine, else one of our own until the end."""
        engine = running_engine() or own_engine(self.folder, self._opened)
        return self._opened.enter_context(closing(engine))

    @cached_property
    def image(self) -> str:
        """Tag of an image whose command copies one file from its input to its output."""
        return self.make_image(IMAGE_COMMAND)

    def make_image(self, command: Sequence[str]) -> str:
        """Import a tiny image with this command; its tag. It is removed at the end."""
        repository = f"inference-server-benchmark/tiny-{secrets.token_hex(4)}"
        files = {INPUT_FILE.lstrip("/"): SMALL_INPUT, f"{OUTPUT_FOLDER.lstrip('/')}/.keep": b""}
        changes = ["ENV PATH=/bin", f"CMD {json.dumps(list(command))}"]
        self.engine.api.import_image_from_data(root_tar(files), repository, "1", changes=changes)
        tag = f"{repository}:1"
        self._opened.callback(self.engine.images.remove, tag, force=True)
        return tag

    @cached_property
    def postgres(self) -> PostgresCluster:
        """A server that flushes to disk, as one in production does."""
        folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-postgres-", dir="/tmp"))
        cluster = PostgresCluster(Path(folder), fsync="on", shared_buffers="256MB", autovacuum="off")
        cluster.start()
        self._opened.callback(cluster.stop)
        return cluster

    @cached_property
    def rabbit(self) -> RabbitNode:
        """A broker of one node."""
        folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-rabbitmq-"))
        node = self._opened.enter_context(closing(RabbitNode(server_binary(), Path(folder))))
        node.start()
        return node

    def database_url(self, kind: str) -> str:
        """The address of a new, empty database; ``kind`` is ``SQLite`` or ``PostgreSQL``."""
        name = f"bench_{secrets.token_hex(6)}"
        if kind == "SQLite":
            return f"sqlite:///{self.folder / name}.db"
        self.postgres.execute(f"CREATE DATABASE {name}")
        return self.postgres.url(name)

    @contextmanager
    def platform(self, shape: str, **environment: str) -> Iterator[Platform]:
        """A started platform of this shape, without a consumer."""
        is_brokered = shape == BROKERED
        url = self.database_url("PostgreSQL" if is_brokered else "SQLite")
        broker = None
        if is_brokered:
            broker = self.rabbit.url
            with RabbitQueues(broker) as queues:
                queues.delete(*ALL_QUEUES)
        folder = self.folder / f"platform-{secrets.token_hex(4)}"
        folder.mkdir()
        with Platform(folder, url, broker) as platform:
            platform.start(**({"LEASE_SECONDS": "30", "LOG_LEVEL": "INFO"} | environment))
            yield platform

    def start_consumer(self, platform: Platform) -> Service:
        """A consumer with the docker runner and its shipped pauses, and the one model registered."""
        with platform.client() as client:
            client.add_model(MODEL, self.image)
        return platform.start_consumer("docker", SWEEP_SECONDS="15", LOG_LEVEL="INFO")

    @cached_property
    def small_zip(self) -> Path:
        """The input of a small task."""
        path = self.folder / "small.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(Path(INPUT_FILE).name, SMALL_INPUT)
        return path

    @contextmanager
    def floor_app(self, name: str, **environment: str) -> Iterator[tuple[str, int]]:
        """One of the bare apps in its own process, under uvicorn as installed; host and port."""
        port = free_port()
        log = self.folder / f"{name}-{port}.log"
        app = {"FLOOR_APP": name, "FLOOR_PORT": str(port), **environment}
        service = Service(name, "benchmarks.floor_apps", app, log)
        try:
            eventually(lambda: "Uvicorn running" in service.log or service.process.poll() is not None, 30)
            if service.process.poll() is not None:
                sys.stderr.write(service.log)
            yield "127.0.0.1", port
        finally:
            service.stop()

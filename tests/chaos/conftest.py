"""Platforms whose parts die."""

from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from contracts.models import RequestedLimits
from inference_client import InferenceClient
from job_consumer.runner.docker.labels import INSTALLATION
from tests.support.hostile_models import tag_of, zip_of
from tests.support.platform import Platform, PlatformMaker


class Engine:
    """What one platform has on the Docker engine now."""

    def __init__(self, client: docker.DockerClient, installation: str) -> None:
        self._client = client
        self._filters = {"label": f"{INSTALLATION}={installation}"}

    def containers(self) -> list[str]:
        """Names of its containers, running or not."""
        found = self._client.containers.list(all=True, sparse=True, filters=self._filters)
        return [container.attrs["Names"][0] for container in found]

    def volumes(self) -> list[str]:
        """Names of its volumes."""
        return [found.name for found in self._client.volumes.list(filters=self._filters)]


@pytest.fixture
def engine_of(docker_engine: docker.DockerClient) -> Callable[[Platform], Engine]:
    def look(platform: Platform) -> Engine:
        return Engine(docker_engine, platform.internal("GET", "/internal/platform").json()["installation"])

    return look


@pytest.fixture
def polled(make_platform: PlatformMaker) -> Platform:
    """SQLite and the long poll, no consumer yet."""
    return make_platform()


@pytest.fixture
def client(polled: Platform) -> Iterator[InferenceClient]:
    with polled.client() as opened:
        for name in ("echo_tree", "sleeps", "fails", "writes_nothing"):
            opened.add_model(name, tag_of(name), limits=RequestedLimits(timeout_seconds=60))
        yield opened


@pytest.fixture
def input_zip(tmp_path: Path) -> Path:
    return zip_of(tmp_path / "input.zip", {"file": "content"})

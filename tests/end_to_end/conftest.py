"""The platform as users meet it, in the two shapes that are shipped."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.queue import ALL_QUEUES
from inference_client import InferenceClient
from models_examples.build import example_folders
from tests.support.model_folders import hostile_folders
from tests.support.platform import Platform
from tests.support.postgres import PostgresCluster
from tests.support.rabbitmq import RabbitNode, RabbitQueues


@dataclass(frozen=True)
class Shape:
    """A running platform with every model registered."""

    platform: Platform
    client: InferenceClient


SHAPES = ("RabbitMQ, PostgreSQL, docker", "long poll, SQLite, process")


@pytest.fixture(scope="package")
def package_postgres_url(postgres_cluster: PostgresCluster) -> str:
    """A database for the package's platform; it goes with the cluster."""
    postgres_cluster.execute("CREATE DATABASE end_to_end")
    return postgres_cluster.url("end_to_end")


@pytest.fixture(scope="package")
def package_rabbitmq_url(rabbit_node: RabbitNode) -> str:
    """The session's broker, running, without any of the platform's queues."""
    rabbit_node.start()
    with RabbitQueues(rabbit_node.url) as queues:
        queues.delete(*ALL_QUEUES)
    return rabbit_node.url


@pytest.fixture(scope="package", params=SHAPES)
def shape(request: pytest.FixtureRequest, all_models_folder: Path) -> Iterator[Shape]:
    """Each shape once for all tests of this folder."""
    big = request.param == SHAPES[0]
    runner = "docker" if big else "process"
    if big:
        for name in example_folders():
            request.getfixturevalue("example_image")(name)
        for name in hostile_folders():
            request.getfixturevalue("hostile_image")(name)
    database_url = request.getfixturevalue("package_postgres_url") if big else None
    rabbitmq_url = request.getfixturevalue("package_rabbitmq_url") if big else None
    with (
        tempfile.TemporaryDirectory(prefix="platform-") as folder,
        Platform(Path(folder), database_url, rabbitmq_url) as platform,
    ):
        platform.start(LEASE_SECONDS="15")
        platform.start_consumer(runner, MODELS_FOLDER=str(all_models_folder))
        with platform.client() as client:
            for model in (*example_folders().values(), *hostile_folders().values()):
                client.add_model_folder(model)
            yield Shape(platform, client)

"""The broker's drop-in image with the deployment's own settings and definitions, over a port of this host."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import httpx
import pika
import pytest
from docker.models.containers import Container
from pika.exceptions import AMQPConnectionError

from contracts.queue import queue_for
from deployment.secrets import definitions
from tests.support.base_images import (
    STOP_SECONDS,
    StartContainer,
    address_of,
    containers_of,
    ended,
    log_of,
    read_only,
    run_in,
)
from tests.support.waiting import eventually

PASSWORD = "a password of a test"
MEMORY_LIMIT = 2**30
SETTINGS = Path(__file__).parents[2] / "rabbitmq" / "rabbitmq.conf"
QUEUE = queue_for(use_gpu=False)


@pytest.fixture(scope="module")
def broker(
    image_engine: docker.DockerClient, rabbitmq_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    given = tmp_path_factory.mktemp("secrets") / "rabbitmq_definitions.json"
    given.write_text(json.dumps(definitions(PASSWORD, salt=b"salt")))
    with containers_of(image_engine) as start:
        container = start(
            rabbitmq_image,
            hostname="rabbitmq",
            mem_limit=MEMORY_LIMIT,
            volumes={
                **read_only(given, "/run/secrets/rabbitmq_definitions.json"),
                str(SETTINGS): {"bind": "/etc/rabbitmq/conf.d/90-inference-server.conf", "mode": "ro"},
            },
            ports={"5672/tcp": ("127.0.0.1", None), "15672/tcp": ("127.0.0.1", None)},
        )
        wait_until_ready(container)
        yield container


def wait_until_ready(container: Container) -> None:
    command = ["rabbitmq-diagnostics", "--quiet", "check_port_listener", "5672"]
    eventually(lambda: container.exec_run(command).exit_code == 0, within=120, every=0.5)


def connection(broker: Container, user: str, password: str, vhost: str) -> pika.BlockingConnection:
    host, port = address_of(broker, 5672)
    credentials = pika.PlainCredentials(user, password)
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, vhost, credentials, socket_timeout=30))


def names(broker: Container, *command: str) -> list[str]:
    """The first column that rabbitmqctl lists."""
    lines = run_in(broker, "rabbitmqctl", "--quiet", "--no-table-headers", *command).splitlines()
    return [line.split("\t")[0] for line in lines]


def test_only_the_user_of_the_definitions_exists(broker: Container) -> None:
    assert names(broker, "list_users") == ["inference"]


@pytest.mark.parametrize(("user", "password"), [("guest", "guest"), ("inference", "another one")])
def test_guest_and_wrong_passwords_are_refused(broker: Container, user: str, password: str) -> None:
    with pytest.raises(AMQPConnectionError):
        connection(broker, user, password, "inference").close()


def test_the_queues_of_the_definitions_are_there_and_replicated(broker: Container) -> None:
    listed = run_in(
        broker, "rabbitmqctl", "--quiet", "--formatter=json", "list_queues", "--vhost=inference", "name", "type"
    )

    assert {queue["name"]: queue["type"] for queue in json.loads(listed)} == {
        QUEUE: "quorum",
        queue_for(use_gpu=True): "quorum",
    }


def test_limits_of_memory_and_disk_are_below_what_the_container_has(broker: Container) -> None:
    status: dict[str, Any] = json.loads(run_in(broker, "rabbitmq-diagnostics", "--formatter=json", "status"))

    assert status["vm_memory_high_watermark_limit"] < 0.7 * MEMORY_LIMIT
    assert status["disk_free_limit"] == 10**9
    assert status["alarms"] == []


@pytest.mark.parametrize("user", ["root", "rabbitmq"])
def test_the_command_line_tools_work_for_root_and_for_the_servers_user(broker: Container, user: str) -> None:
    assert "fully booted" in run_in(broker, "rabbitmq-diagnostics", "--quiet", "check_running", user=user)


def test_the_management_plugin_listens_and_asks_for_a_password(broker: Container) -> None:
    host, port = address_of(broker, 15672)

    assert httpx.get(f"http://{host}:{port}/api/overview").status_code == 401


def test_the_server_runs_as_a_user_without_rights_and_the_official_images_number(broker: Container) -> None:
    status = dict(line.split(":\t", 1) for line in run_in(broker, "cat", "/proc/1/status").splitlines())

    assert status["Name"] == "beam.smp"
    assert status["Uid"].split() == ["999"] * 4
    assert status["CapEff"] == "0" * 16
    assert run_in(broker, "stat", "--format=%u:%g %a", "/var/lib/rabbitmq/.erlang.cookie") == "999:999 400"


def test_a_stop_is_clean_and_messages_survive_it(broker: Container) -> None:
    with closing(connection(broker, "inference", PASSWORD, "inference")) as before:
        channel = before.channel()
        channel.confirm_delivery()
        channel.basic_publish("", QUEUE, b"a task", pika.BasicProperties(delivery_mode=2), mandatory=True)

    broker.stop(timeout=STOP_SECONDS)
    assert broker.wait(timeout=60)["StatusCode"] == 0, log_of(broker)
    broker.start()
    wait_until_ready(broker)

    with closing(connection(broker, "inference", PASSWORD, "inference")) as after:
        frame, _, body = after.channel().basic_get(QUEUE, auto_ack=True)
    assert frame is not None
    assert body == b"a task"
    assert names(broker, "list_users") == ["inference"]


def test_each_deployment_makes_its_own_key(rabbitmq_image: str, start_container: StartContainer) -> None:
    script = "ls -A /var/lib/rabbitmq"

    assert ended(start_container(rabbitmq_image, ["sh", "-c", script])) == (0, "")


def test_data_of_another_user_are_taken_over(rabbitmq_image: str, start_container: StartContainer) -> None:
    """A folder of the host, or one that a restore wrote as root."""
    before = start_container(rabbitmq_image, ["sh", "-c", "mkdir -m 700 /var/lib/rabbitmq/mnesia"])
    assert ended(before) == (0, "")

    container = start_container(rabbitmq_image, volumes_from=[before.id], hostname="rabbitmq")
    wait_until_ready(container)

    assert run_in(container, "stat", "--format=%U", "/var/lib/rabbitmq/mnesia") == "rabbitmq"

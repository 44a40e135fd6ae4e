"""A RabbitMQ node of our own, from the installed binary: own name, ports, cookie and data, so that it may be killed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pika
import pytest
from pika.exceptions import AMQPError, NackError

from contracts.queue import ALL_QUEUES, QUEUE_ARGUMENTS
from contracts.tasks import TaskOffer
from tests.support.ports import free_port
from tests.support.requirements import missing
from tests.support.waiting import eventually

_UNWRAPPED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's wrapper on the PATH would change the user and write to the system's own folders."""

_CONFIGURATION = """\
listeners.tcp.default = 127.0.0.1:{port}
disk_free_limit.absolute = 10MB
log.console = false
"""


def server_binary() -> Path:
    """The installed broker."""
    on_path = shutil.which("rabbitmq-server")
    binary = _UNWRAPPED if _UNWRAPPED.exists() else on_path and Path(on_path)
    if not binary or not shutil.which("epmd"):
        missing("RabbitMQ is not installed (apt-get install rabbitmq-server), and TEST_RABBITMQ_URL is not set")
    return Path(binary)


class RabbitNode:
    """One broker that tests may stop, kill and start again; its data outlive that."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.port, distribution_port, names_port = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        self._binary = binary
        self._folder = folder
        self._pid_file = folder / "beam.pid"
        configuration = folder / "rabbitmq.conf"
        configuration.write_text(_CONFIGURATION.format(port=self.port))
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"test-{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(configuration),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            "ERL_EPMD_PORT": str(names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._names = subprocess.Popen(
            ["epmd", "-port", str(names_port), "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start unless it runs, and wait until clients are served."""
        if self._server is not None and self._server.poll() is None:
            return
        self._pid_file.unlink(missing_ok=True)
        with (self._folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                [self._binary],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(self._serves, within=90, every=0.1)

    def stop(self) -> None:
        """Shut down in order, as an operator would."""
        if self._server is not None:
            os.kill(int(self._pid_file.read_text()), signal.SIGTERM)
            self._end()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._end()

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        self._names.kill()
        self._names.wait(60)

    def _end(self) -> None:
        server, self._server = self._server, None
        assert server is not None
        server.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)

    def _serves(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            raise RuntimeError(f"RabbitMQ ended at its start: {(self._folder / 'output').read_text()[-2000:]}")
        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except (AMQPError, OSError):
            return False
        return True


class RabbitQueues:
    """The tests' own look at the queues, on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def declare(self, queue: str) -> int:
        """Create the queue if needed; how many messages are ready in it."""
        answer = self._channel.queue_declare(queue, durable=True, arguments=dict(QUEUE_ARGUMENTS))
        return int(answer.method.message_count)

    ready = declare

    def subscribers(self, queue: str) -> int:
        """How many consumers are subscribed to the queue."""
        answer = self._channel.queue_declare(queue, durable=True, arguments=dict(QUEUE_ARGUMENTS))
        return int(answer.method.consumer_count)

    def put(self, queue: str, *uids: str) -> None:
        """Publish offers, confirmed."""
        self.declare(queue)
        for uid in uids:
            self.put_bytes(queue, TaskOffer(uid=uid).model_dump_json().encode())

    def put_bytes(self, queue: str, body: bytes) -> None:
        """Publish anything, confirmed. A quorum queue that was declared just now refuses until its leader is elected."""

        def confirmed() -> bool:
            try:
                self._channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
            except NackError:
                return False
            return True

        eventually(confirmed, within=60)

    def take_all(self, queue: str) -> list[str]:
        """Remove all ready messages; their uids in order."""
        uids: list[str] = []
        while True:
            method, _, body = self._channel.basic_get(queue, auto_ack=True)
            if method is None:
                return uids
            uids.append(TaskOffer.model_validate_json(body).uid)

    def delete(self, *queues: str) -> None:
        """Delete queues with all that is in them."""
        for queue in queues:
            self._channel.queue_delete(queue)

    def close(self) -> None:
        """Let go of the connection; not an error when it is lost."""
        with suppress(AMQPError, OSError):
            self._connection.close()


@pytest.fixture(scope="session")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A broker that the test may stop; one for the whole run. Leave it running or stopped, as you like."""
    if os.environ.get("TEST_RABBITMQ_URL"):
        pytest.skip("TEST_RABBITMQ_URL names a broker that is not ours to stop")
    with closing(RabbitNode(server_binary(), tmp_path_factory.mktemp("rabbitmq"))) as node:
        yield node


@pytest.fixture
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """A running broker without any of the platform's queues. With TEST_RABBITMQ_URL, give it a vhost of its own."""
    url = os.environ.get("TEST_RABBITMQ_URL")
    if not url:
        node: RabbitNode = request.getfixturevalue("rabbit_node")
        node.start()
        url = node.url
    with RabbitQueues(url) as queues:
        queues.delete(*ALL_QUEUES)
    return url


@pytest.fixture
def rabbit_queues(rabbitmq_url: str) -> Iterator[RabbitQueues]:
    """The tests' own look at the queues."""
    with RabbitQueues(rabbitmq_url) as queues:
        yield queues

"""The deployed stack, driven through Traefik's port alone, broken, and used again."""

import hashlib
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import httpx
import psutil
import pytest

from contracts.task_state import TaskState
from inference_client import ClientError, InferenceClient, TaskCancelled, TaskNotFound
from tests.support.hostile_models import tag_of, unzipped, zip_of
from tests.support.outside_host import OutsideHost
from tests.support.stack import HTTPS_URL, Deployment
from tests.support.waiting import eventually

CONSUMERS = 3
TASKS = 100
RUN_SECONDS = 150
ASK_EVERY = 0.25
"""Seconds between looks through Traefik, which lets a client ask a hundred things a second (RATE_LIMIT_AVERAGE)."""
HARD_RUN_SECONDS = 400
MODELS = {
    "pass-through": "inference-server/pass-through:1",
    "takes-its-time": tag_of("takes_its_time"),
    "fails": tag_of("fails"),
}
UNPUBLISHED = {"public-api": 8000, "private-api": 7000, "rabbitmq": 5672, "postgres": 5432, "online-gateway": 5002}
WORKERS_PORT = 5010


@pytest.fixture(scope="module")
def stack(
    deployment: Deployment, hostile_image: Callable[[str], str], example_image: Callable[[str], str]
) -> Deployment:
    """The deployment with three consumers, and models that tests use."""
    example_image("pass_through")
    for name in ("takes_its_time", "fails", "reads_model"):
        hostile_image(name)
    deployment.set(CPU_CONSUMERS=str(CONSUMERS), ALLOW_PUBLIC_POST_MODEL="true")
    deployment.make("up")
    with deployment.client() as client:
        for name, tag in MODELS.items():
            client.add_model(name, tag)
    return deployment


@pytest.fixture
def client(stack: Deployment) -> Iterator[InferenceClient]:
    with stack.client() as client:
        yield client


def input_of(folder: Path, name: str, **files: str) -> Path:
    return zip_of(folder / f"{name}.zip", dict(files))


def test_plain_http_only_sends_to_https(stack: Deployment) -> None:
    answer = httpx.get("http://localhost/api/models/?a=b", follow_redirects=False, timeout=30)

    assert answer.status_code in (301, 308)
    assert answer.headers["location"].startswith("https://localhost")
    assert answer.headers["location"].endswith("/api/models/?a=b")


def test_who_does_not_know_the_authority_is_not_fooled(stack: Deployment) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{HTTPS_URL}/api/models/", timeout=30)


def test_a_model_with_content_reads_it(client: InferenceClient, tmp_path: Path) -> None:
    content = zip_of(tmp_path / "content.zip", {"weights/one.bin": b"\x00\x01" * 1000})
    client.add_model("reads-model", tag_of("reads_model"), content=content)

    uid = client.submit("reads-model", input_of(tmp_path, "in", file="content"))
    client.wait(uid, RUN_SECONDS)
    client.download(uid, tmp_path / "out.zip")

    assert unzipped(tmp_path / "out.zip")["weights/one.bin"] == b"\x00\x01" * 1000


def test_a_hundred_tasks_on_three_consumers(stack: Deployment, client: InferenceClient, tmp_path: Path) -> None:
    packages = [input_of(tmp_path, f"in-{number}", number=str(number)) for number in range(TASKS)]

    def travel(number: int) -> dict[str, bytes]:
        uid = client.submit("pass-through", packages[number])
        client.wait(uid, RUN_SECONDS)
        client.download(uid, tmp_path / f"out-{number}.zip")
        return unzipped(tmp_path / f"out-{number}.zip")

    with ThreadPoolExecutor(8) as users:
        outputs = list(users.map(travel, range(TASKS)))

    assert outputs == [{"number": str(number).encode()} for number in range(TASKS)]
    shares = [attempts_of(stack, container) for container in stack.containers("job-consumer")]
    assert len(shares) == CONSUMERS
    assert min(shares) > TASKS / 10


def attempts_of(stack: Deployment, container: str) -> int:
    """How many attempts a consumer has begun, by its log."""
    return engine_logs(stack, container).count('"action": "attempt_started"')


def engine_logs(stack: Deployment, container: str) -> str:
    with docker_client(stack) as engine:
        return str(engine.containers.get(container).logs().decode(errors="replace"))


def docker_client(stack: Deployment) -> closing[docker.DockerClient]:
    return closing(docker.DockerClient(base_url=f"unix://{stack.environment['DOCKER_SOCKET']}"))


def test_a_gpu_task_on_a_host_without_cards_waits_and_says_for_what(client: InferenceClient, tmp_path: Path) -> None:
    client.add_model("needs-card", "inference-server/pass-through:1", use_gpu=True)
    uid = client.submit("needs-card", input_of(tmp_path, "in", file="content"))

    eventually(lambda: "GPU" in (client.status(uid).waiting_for or ""), every=ASK_EVERY)
    assert client.state(uid) is TaskState.PENDING
    client.cancel(uid)


def test_a_running_task_is_cancelled_and_its_container_goes(
    stack: Deployment, client: InferenceClient, tmp_path: Path
) -> None:
    uid = client.submit("takes-its-time", input_of(tmp_path, "in", seconds="600"))
    eventually(lambda: client.state(uid) is TaskState.RUNNING, within=60, every=ASK_EVERY)

    client.cancel(uid)

    with pytest.raises(TaskCancelled):
        client.wait(uid, RUN_SECONDS)
    with docker_client(stack) as engine:
        of_model = {"ancestor": tag_of("takes_its_time")}
        eventually(lambda: not engine.containers.list(all=True, filters=of_model), within=60, every=0.2)


def test_a_failed_task_keeps_its_exit_code_and_log(client: InferenceClient, tmp_path: Path) -> None:
    uid = client.submit("fails", input_of(tmp_path, "in", file="content"))
    eventually(lambda: client.state(uid) is TaskState.FAILED, within=60, every=ASK_EVERY)

    assert client.status(uid).exit_code == 3
    assert "the weights are broken" in client.logs(uid)


RESTORE = """\
docker compose stop private-api
docker compose run --rm -T private-api python -m private_api.admin restore - --replace < before.tar
docker compose up --detach --wait
"""
"""As documentation/how_to/back_up_and_upgrade.md has it."""


@pytest.mark.timeout(600)
def test_a_backup_made_while_running_is_restored(stack: Deployment, client: InferenceClient, tmp_path: Path) -> None:
    before = client.submit("pass-through", input_of(tmp_path, "before", file="before"))
    client.wait(before, RUN_SECONDS)

    stack.make("backup", "FILE=before.tar")
    after = client.submit("pass-through", input_of(tmp_path, "after", file="after"))
    client.wait(after, RUN_SECONDS)
    stack.shell(RESTORE)

    client.download(before, tmp_path / "out.zip")
    assert unzipped(tmp_path / "out.zip") == {"file": b"before"}
    with pytest.raises(TaskNotFound):
        client.state(after)
    assert (stack.folder / "before.tar").stat().st_mode & 0o077 == 0


@pytest.mark.timeout(600)
def test_a_broker_that_is_emptied_loses_no_task(stack: Deployment, client: InferenceClient, tmp_path: Path) -> None:
    uids = [client.submit("takes-its-time", input_of(tmp_path, f"in-{n}", seconds="3")) for n in range(9)]

    stack.make("reset-queue")

    for uid in uids:
        client.wait(uid, RUN_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_gibibytes_travel_both_ways(client: InferenceClient, tmp_path: Path) -> None:
    noise = os.urandom(2**20)
    with (
        zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_STORED) as archive,
        archive.open("big.bin", "w", force_zip64=True) as entry,
    ):
        for _ in range(2048):
            entry.write(noise)

    uid = client.submit("pass-through", tmp_path / "in.zip")
    client.wait(uid, HARD_RUN_SECONDS)
    client.download(uid, tmp_path / "out.zip")

    with zipfile.ZipFile(tmp_path / "out.zip") as archive, archive.open("big.bin") as entry:
        assert hashlib.file_digest(entry, "sha256").hexdigest() == digest_of(noise, 2048)  # type: ignore[arg-type]


def digest_of(part: bytes, times: int) -> str:
    digest = hashlib.sha256()
    for _ in range(times):
        digest.update(part)
    return digest.hexdigest()


@pytest.mark.timeout(600)
def test_a_soft_reset_in_mid_queue_loses_nothing(stack: Deployment, client: InferenceClient, tmp_path: Path) -> None:
    uids = [client.submit("takes-its-time", input_of(tmp_path, f"in-{n}", seconds="2")) for n in range(12)]
    client.wait(uids[0], RUN_SECONDS)

    stack.make("down")
    stack.make("up")

    for uid in uids:
        client.wait(uid, RUN_SECONDS)
    assert {client.status(uid).attempt for uid in uids} <= {1, 2}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "service", ["public-api", "private-api", "rabbitmq", "postgres", "reverse-proxy", "job-consumer"]
)
def test_a_service_that_is_killed_comes_back_and_no_task_is_lost(
    stack: Deployment, client: InferenceClient, tmp_path: Path, service: str
) -> None:
    uids = [client.submit("takes-its-time", input_of(tmp_path, f"in-{n}", seconds="1")) for n in range(6)]

    with docker_client(stack) as engine:
        victim = engine.containers.get(stack.containers(service)[0])
        os.kill(int(victim.attrs["State"]["Pid"]), signal.SIGKILL)

        uids += [eventually(lambda: accepted(client, tmp_path), within=90, every=ASK_EVERY)]
        for uid in uids:
            ending = eventually(lambda uid=uid: ended(client, uid), within=RUN_SECONDS, every=ASK_EVERY)
            assert ending is TaskState.FINISHED
        eventually(lambda: healthy(engine, stack, service), within=120, every=0.5)


def accepted(client: InferenceClient, folder: Path) -> str | None:
    """A new task, or None while a service is away."""
    try:
        return client.submit("pass-through", input_of(folder, "after", file="content"))
    except ClientError:
        return None


def ended(client: InferenceClient, uid: str) -> TaskState | None:
    """The final state, or None: not yet, or not to be asked now."""
    try:
        state = client.state(uid)
    except ClientError:
        return None
    return state if state.is_final else None


def healthy(engine: docker.DockerClient, stack: Deployment, service: str) -> bool:
    found = [engine.containers.get(container) for container in stack.containers(service)]
    return bool(found) and all(one.attrs["State"].get("Health", {}).get("Status") == "healthy" for one in found)


def test_from_outside_only_the_two_ports_of_the_proxy_answer(stack: Deployment, outside_host: OutsideHost) -> None:
    ports = [80, 443, *UNPUBLISHED.values(), WORKERS_PORT, 8080, 8082, 8443, 15672, 2375]

    answering = outside_host.reaches([f"{outside_host.address}:{port}" for port in ports])

    assert answering == {f"{outside_host.address}:{port}" for port in (80, 443)}


def test_a_neighbour_that_routes_through_the_host_reaches_no_container(
    stack: Deployment, outside_host: OutsideHost
) -> None:
    targets = []
    with docker_client(stack) as engine:
        for service, port in UNPUBLISHED.items():
            container = engine.containers.get(stack.containers(service)[0])
            networks = container.attrs["NetworkSettings"]["Networks"].values()
            ports = (port, WORKERS_PORT) if service == "online-gateway" else (port,)
            targets += [f"{network['IPAddress']}:{port}" for network in networks for port in ports]

    assert outside_host.reaches(targets) == set()


def test_no_secret_and_no_whole_uid_is_in_a_log_an_environment_or_a_command_line(
    stack: Deployment, client: InferenceClient, tmp_path: Path
) -> None:
    uid = client.submit("pass-through", input_of(tmp_path, "in", file="content"))
    client.wait(uid, RUN_SECONDS)
    client.status(uid)
    client.logs(uid)

    secrets = [path.read_text().strip() for path in (stack.folder / "secrets").iterdir()]
    secrets += filter(None, (urlsplit(secret).password for secret in secrets if "://" in secret))
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [secret for secret in secrets if any(secret in command for command in commands)]
    with docker_client(stack) as engine:
        of_project = {"label": f"com.docker.compose.project={stack.environment['COMPOSE_PROJECT_NAME']}"}
        for container in engine.containers.list(all=True, filters=of_project):
            seen = container.logs().decode(errors="replace") + json.dumps(container.attrs)
            assert uid not in seen, container.name
            assert not [secret for secret in secrets if secret in seen], container.name


def test_the_access_log_tells_the_kind_of_request(stack: Deployment, client: InferenceClient) -> None:
    client.list_models()

    lines = eventually(lambda: access_lines(stack, of="models"), every=0.2)  # each is written after its answer
    assert not [line for line in lines if re.search(r"/api/", json.dumps(line))]


def access_lines(stack: Deployment, of: str) -> list[dict[str, Any]]:
    """The reverse proxy's, as soon as one of this router is among them."""
    (proxy,) = stack.containers("reverse-proxy")
    lines = [json.loads(line) for line in engine_logs(stack, proxy).splitlines() if '"RouterName"' in line]
    return lines if any(line["RouterName"].startswith(of) for line in lines) else []


def test_the_platforms_containers_run_as_the_file_says(stack: Deployment) -> None:
    with docker_client(stack) as engine:
        for service in ("public-api", "private-api", "job-consumer", "reverse-proxy"):
            container = engine.containers.get(stack.containers(service)[0])
            assert container.attrs["HostConfig"]["ReadonlyRootfs"], service
            assert container.attrs["HostConfig"]["CapDrop"] == ["ALL"], service
            sockets = [mount["Destination"] for mount in container.attrs["Mounts"] if "docker.sock" in mount["Source"]]
            assert bool(sockets) == (service == "job-consumer")
        for service in ("public-api", "private-api"):
            container = engine.containers.get(stack.containers(service)[0])
            assert container.exec_run(["id", "-u"]).output.strip() == b"10001"

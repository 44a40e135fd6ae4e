"""The platform on three hosts with addresses of their own: used, updated, cut apart, and put together again."""

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from contracts.task_state import POLL_PENDING, TaskState
from inference_client import InferenceClient
from tests.support.compose import ROOT
from tests.support.constant_load import ConstantLoad, SlowUpload
from tests.support.hostile_models import tag_of, unzipped, zip_of
from tests.support.lan import Host
from tests.support.swarm import LEASE_SECONDS, PAGE, Swarm
from tests.support.waiting import eventually

MODEL = "takes-its-time"
GPU_MODEL = "needs-a-card"
RUN_SECONDS = 120
COMES_BACK_SECONDS = 120
"""Docker's overlay networks exchange all that they know every 30 s; before, a host that was away reaches no other."""
LONG_RUN_SECONDS = 15
"""Of a model that still runs when all hosts have begun one and were asked about it."""
LONG_POLLS = 24
UNPUBLISHED = {
    "public-api": 8000,
    "private-api": 7000,
    "postgres": 5432,
    "rabbitmq": 5672,
    "online-gateway": 5002,
    "workers of the gateway": 5010,
}
IRIS = ROOT / "models_examples" / "iris" / "iris.onnx"
ESTABLISHED = "01"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def model_image(hostile_image: Callable[[str], str]) -> str:
    """A model that runs as long as its input says."""
    return hostile_image("takes_its_time")


@pytest.fixture(scope="module", autouse=True)
def models(swarm: Swarm) -> None:
    with swarm.client() as client:
        client.add_model(MODEL, tag_of("takes_its_time"))
        client.add_model(GPU_MODEL, tag_of("takes_its_time"), use_gpu=True)


@pytest.fixture
def client(swarm: Swarm) -> Iterator[InferenceClient]:
    with swarm.client() as client:
        yield client


def input_of(folder: Path, seconds: float) -> Path:
    return zip_of(folder / f"{seconds}.zip", {"seconds": str(seconds)})


@pytest.fixture
def gpu_task(client: InferenceClient, tmp_path: Path) -> Iterator[str]:
    """The uid of a task that no host can run."""
    uid = client.submit(GPU_MODEL, input_of(tmp_path, 0))
    yield uid
    client.cancel(uid)


def all_finished(client: InferenceClient, uids: list[str]) -> bool:
    return all(client.state(uid) is TaskState.FINISHED for uid in uids)


def test_a_host_needs_to_join_and_a_label_and_nothing_else(
    swarm: Swarm, client: InferenceClient, tmp_path: Path
) -> None:
    newcomer = swarm.hosts[2]
    assert swarm.containers(newcomer, "job-consumer") == []

    swarm.join(newcomer)
    eventually(lambda: swarm.is_ready(newcomer), within=90, every=0.5)
    uids = [client.submit(MODEL, input_of(tmp_path, 1)) for _ in range(6)]

    eventually(lambda: swarm.started(newcomer), within=90, every=0.5)
    eventually(lambda: all_finished(client, uids), within=RUN_SECONDS, every=0.5)


def test_consumers_share_their_scratch_folder_with_the_engine_of_their_host(swarm: Swarm) -> None:
    for host in swarm.hosts:
        assert "volumes_through_shared_folder" in swarm.log(host, "job-consumer")


def test_thirty_tasks_spread_over_three_hosts(swarm: Swarm, client: InferenceClient, tmp_path: Path) -> None:
    before = {host.name: len(swarm.started(host)) for host in swarm.hosts}

    uids = [client.submit(MODEL, input_of(tmp_path, 1)) for _ in range(30)]
    eventually(lambda: all_finished(client, uids), within=RUN_SECONDS, every=0.5)

    shares = {host.name: len(swarm.started(host)) - before[host.name] for host in swarm.hosts}
    assert sum(shares.values()) == 30
    assert min(shares.values()) >= 3, shares
    assert {client.status(uid).attempt for uid in uids} == {1}


def test_only_the_door_is_open(swarm: Swarm) -> None:
    ports = [*UNPUBLISHED.values(), 80, 443, 8080, 8082, 8443, 15672, 2375]
    targets = [(host.address, port) for host in swarm.hosts for port in ports]

    with ThreadPoolExecutor(len(targets)) as visitors:
        answers = dict(zip(targets, visitors.map(answers_at, targets), strict=True))

    door = swarm.manager.address
    assert {target for target, answered in answers.items() if answered} == {(door, 80), (door, 443)}


def answers_at(target: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(target, timeout=3):
        return True
    return False


def test_model_hosts_start_by_a_label_and_more_of_them_by_one_command(swarm: Swarm) -> None:
    swarm.follow("modelhost=true")
    token = (swarm.clone / "secrets" / "admin_token").read_text().strip()
    address = "/api/v1/models/iris.onnx"
    trusting = ssl.create_default_context(cafile=swarm.ca)

    with httpx.Client(base_url=swarm.url, verify=trusting, timeout=60) as user:
        eventually(lambda: len(model_hosts(user)) == 2, within=90, every=0.5)
        headers = {"Authorization": f"Bearer {token}"}
        uploaded = user.put(address, files={"path": ("iris.onnx", IRIS.read_bytes())}, headers=headers)
        answer = user.post(f"{address}/prediction", json={"values": [[5.1, 3.5, 1.4, 0.2]]})
        swarm.follow("inference_modelhost=3")
        eventually(lambda: len(model_hosts(user)) == 3, within=90, every=0.5)

    assert uploaded.status_code == 201
    assert answer.json()["values"] == [0]


def model_hosts(user: httpx.Client) -> set[str]:
    """Those that many calls at once come to; none while they cannot be asked."""
    answer = user.post("/api/test/sendtomodelhost/", json={"data": list(range(20))})
    return {one["modelhost"] for one in answer.json()["responses"]} if answer.is_success else set()


def test_both_replicas_of_public_api_get_requests(swarm: Swarm, gpu_task: str) -> None:
    replicas = swarm.containers(swarm.manager, "public-api")
    assert len(replicas) == 2
    polls: list[Future[int]] = []

    with ThreadPoolExecutor(LONG_POLLS) as users:

        def one_more_and_both_are_busy() -> bool:
            polls.append(users.submit(long_poll, swarm, gpu_task))
            return all(connections_of(swarm.manager, one) for one in replicas)

        eventually(one_more_and_both_are_busy, within=60, every=0.2)

    assert {poll.result() for poll in polls} == {POLL_PENDING}


def long_poll(swarm: Swarm, uid: str) -> int:
    trusting = ssl.create_default_context(cafile=swarm.ca)
    return httpx.get(f"{swarm.url}/api/tasks/{uid}?wait=5", verify=trusting, timeout=60).status_code


def connections_of(host: Host, container: str) -> int:
    """Connections that the reverse proxy has to public_api in the container; its own health check comes over loopback."""
    lines = [line.split() for line in host.docker("exec", container, "cat", "/proc/net/tcp").splitlines()[1:]]
    port = f":{UNPUBLISHED['public-api']:04X}"
    loopback = "0100007F"
    return sum(
        local.endswith(port) and state == ESTABLISHED and not peer.startswith(loopback)
        for _, local, peer, state, *_ in lines
    )


def test_a_rolling_update_of_public_api_fails_no_request(
    swarm: Swarm, client: InferenceClient, tmp_path: Path, gpu_task: str
) -> None:
    before = set(swarm.containers(swarm.manager, "public-api"))
    package = input_of(tmp_path, 0)

    with (
        ConstantLoad(swarm.url, swarm.ca, model=MODEL, package=package, pending=gpu_task) as load,
        SlowUpload(swarm.url, swarm.ca, model=MODEL, package=package) as upload,
    ):
        eventually(lambda: upload.is_under_way.is_set() and load.answered["post"], within=60)
        swarm.follow("docker service update --force")
        polled = load.answered["poll"]
        eventually(lambda: load.failures or load.answered["poll"] > polled + 100, within=60)
        uploaded = upload.hurry()

    assert load.failures == []
    eventually(lambda: all_finished(client, [*load.posted, uploaded]), within=RUN_SECONDS, every=0.5)
    eventually(lambda: not before & set(swarm.containers(swarm.manager, "public-api")), within=90, every=0.5)


def test_a_task_of_a_host_that_is_cut_off_finishes_elsewhere_and_the_host_comes_back(
    swarm: Swarm, client: InferenceClient, tmp_path: Path
) -> None:
    victim = swarm.hosts[2]
    uids = [client.submit(MODEL, input_of(tmp_path, LONG_RUN_SECONDS)) for _ in swarm.hosts]
    eventually(lambda: all(models_on(host) for host in swarm.hosts), within=60, every=0.2)
    starts_before = swarm.log(victim, "job-consumer").count("consumer_ready")
    lost = next(uid for uid in uids if victim in swarm.hosts_of(uid))

    victim.cut_off()
    try:
        eventually(lambda: client.status(lost).attempt == 2, within=LEASE_SECONDS + 60, every=0.5)
        eventually(lambda: all_finished(client, uids), within=RUN_SECONDS, every=0.5)
        eventually(lambda: swarm.node(victim, ".Status.State") == "down", within=90, every=0.5)
    finally:
        victim.reconnect()

    assert len(swarm.hosts_of(lost)) == 2
    assert [client.status(uid).attempt for uid in uids] == [2 if uid == lost else 1 for uid in uids]
    eventually(lambda: not models_on(victim), within=COMES_BACK_SECONDS, every=0.5)
    eventually(
        lambda: swarm.log(victim, "job-consumer").count("consumer_ready") > starts_before,
        within=COMES_BACK_SECONDS,
        every=0.5,
    )
    taken_before = len(swarm.started(victim))
    uids = [client.submit(MODEL, input_of(tmp_path, 1)) for _ in range(6)]
    eventually(lambda: len(swarm.started(victim)) > taken_before, within=90, every=0.5)
    eventually(lambda: all_finished(client, uids), within=RUN_SECONDS, every=0.5)


def models_on(host: Host) -> list[str]:
    """Containers of models on the host, whether they run or not."""
    return host.docker("ps", "--all", "--quiet", "--filter", f"ancestor={tag_of('takes_its_time')}").split()


def test_a_label_starts_the_consumer_of_a_card_and_one_without_its_card_says_so(
    swarm: Swarm, client: InferenceClient, gpu_task: str
) -> None:
    service, host = "inference_job-consumer-gpu-0", swarm.hosts[1]
    assert swarm.manager.docker("service", "ps", "--quiet", service) == ""

    swarm.follow("--label-add gpu-0", new_host=host)
    eventually(lambda: swarm.containers(host, "job-consumer-gpu-0"), within=90, every=0.5)

    eventually(lambda: "driver" in (client.status(gpu_task).waiting_for or ""), within=90, every=0.5)
    eventually(lambda: "No NVIDIA driver" in swarm.follow("docker service logs"), within=90, every=0.5)
    swarm.follow("--label-rm gpu-0", new_host=host)
    eventually(lambda: not swarm.containers(host, "job-consumer-gpu-0"), within=90, every=0.5)


def test_a_host_that_is_drained_gives_its_work_to_others_until_it_is_active_again(swarm: Swarm) -> None:
    host = swarm.hosts[1]

    swarm.follow("--availability drain", new_host=host)
    eventually(lambda: not swarm.containers(host, "job-consumer"), within=90, every=0.5)

    swarm.follow("--availability active", new_host=host)
    eventually(lambda: swarm.containers(host, "job-consumer"), within=90, every=0.5)


def test_a_backup_is_restored(swarm: Swarm, client: InferenceClient, tmp_path: Path) -> None:
    kept = client.submit(MODEL, input_of(tmp_path, 0))
    client.wait(kept, RUN_SECONDS)
    page = (ROOT / "documentation" / "how_to" / "back_up_and_upgrade.md").read_text(encoding="utf-8")
    backup, restore = re.findall(r"^```sh\n(.*?)^```$", section(page, "In a swarm"), re.MULTILINE | re.DOTALL)
    assert "admin restore -" in restore

    swarm.manager.type_in(backup, swarm.clone)
    client.delete(kept)
    swarm.manager.type_in(restore.replace("admin restore -", "admin restore --replace -"), swarm.clone)

    eventually(lambda: trusts_its_certificate(swarm), within=90, every=0.5)
    client.download(kept, tmp_path / "out.zip")
    assert unzipped(tmp_path / "out.zip") == {"seconds": b"0"}


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_a_new_certificate_comes_with_a_new_version_of_its_secret(swarm: Swarm) -> None:
    swarm.follow("CERTS_VERSION=2")

    eventually(lambda: trusts_its_certificate(swarm), within=90, every=0.5)


def trusts_its_certificate(swarm: Swarm) -> bool:
    trusting = ssl.create_default_context(cafile=swarm.ca)
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{swarm.url}/health/ready", verify=trusting, timeout=15).is_success
    return False


def test_every_command_of_the_page_was_typed_in(swarm: Swarm) -> None:
    assert swarm.followed == set(swarm.page)
    assert len(swarm.page) == PAGE.read_text(encoding="utf-8").count("```sh")

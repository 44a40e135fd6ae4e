"""The online path of the deployed stack: through Traefik's port alone, with either half down, broken, and used again."""

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import httpx
import onnx
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper

from tests.support.compose import ROOT
from tests.support.onnx_models import model, picking, saved
from tests.support.stack import HTTPS_URL, Deployment
from tests.support.waiting import eventually

IRIS = ROOT / "models_examples" / "iris" / "iris.onnx"
SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]
ITEMS = list(range(20))
MODELHOST_MEMORY_MB = 512
RUN_SECONDS = 150
ASK_EVERY = 0.25
"""Seconds between looks through Traefik, which lets a client ask a hundred things a second (RATE_LIMIT_AVERAGE)."""
OTHERS = {"private-api": 7000, "postgres": 5432, "rabbitmq": 5672, "public-api": 8000, "reverse-proxy": 8443}
NO_WAY = "no way"
DIAL = f"""
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def dial(target):
    host, port = target.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        return {NO_WAY!r}
    return "reached"

with ThreadPoolExecutor(len(sys.argv)) as dialling:
    print(*dialling.map(dial, sys.argv[1:]), sep="\\n")
"""


@pytest.fixture(scope="module")
def stack(deployment: Deployment) -> Iterator[Deployment]:
    """The deployment with small model hosts, two of them."""
    deployment.set(MODELHOST_MEMORY=f"{MODELHOST_MEMORY_MB}m")
    deployment.make("up")
    yield deployment
    deployment.set(MODELHOST_MEMORY="4g")


@pytest.fixture(scope="module")
def trusting(stack: Deployment) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=stack.ca)


@pytest.fixture(scope="module")
def user(trusting: ssl.SSLContext) -> Iterator[httpx.Client]:
    """Somebody who may call models."""
    with httpx.Client(base_url=HTTPS_URL, verify=trusting, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def admin(stack: Deployment, trusting: ssl.SSLContext) -> Iterator[httpx.Client]:
    """Somebody who may change them too."""
    token = (stack.folder / "secrets" / "admin_token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=HTTPS_URL, verify=trusting, timeout=60, headers=headers) as client:
        yield client


@pytest.fixture
def engine(stack: Deployment) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(base_url=f"unix://{stack.environment['DOCKER_SOCKET']}")) as engine:
        yield engine


def put(client: httpx.Client, name: str, file: Path) -> httpx.Response:
    return client.put(f"/api/v1/models/{name}", files={"path": (name, file.read_bytes())})


@pytest.fixture(scope="module")
def iris(stack: Deployment, admin: httpx.Client) -> int:
    """The model of flowers is served; the generation of it."""
    eventually(lambda: two_hosts(admin), within=60, every=ASK_EVERY)
    answer = put(admin, "iris.onnx", IRIS)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["generation"])


def predicted(client: httpx.Client, values: object, name: str = "iris.onnx") -> httpx.Response:
    return client.post(f"/api/v1/models/{name}/prediction", json={"values": values})


def answered(client: httpx.Client) -> httpx.Response | None:
    """An answer of the model of flowers, or None while it cannot be had."""
    answer = predicted(client, [SETOSA])
    return answer if answer.is_success else None


def hosts_that_answer(client: httpx.Client) -> set[str]:
    """The model hosts that a good many calls at once come to; none while they cannot be asked."""
    answer = client.post("/api/test/sendtomodelhost/", json={"data": ITEMS})
    return {one["modelhost"] for one in answer.json()["responses"]} if answer.is_success else set()


def kill(engine: docker.DockerClient, container: str) -> None:
    os.kill(int(engine.containers.get(container).attrs["State"]["Pid"]), signal.SIGKILL)


def test_an_upload_takes_the_admins_token(user: httpx.Client, admin: httpx.Client, iris: int) -> None:
    assert put(user, "stranger.onnx", IRIS).status_code == 401
    user_with_a_guess = {"Authorization": "Bearer a-guess-of-a-token"}
    assert user.delete("/api/v1/models/iris.onnx", headers=user_with_a_guess).status_code == 401

    assert user.get("/api/v1/models").json()["model_list"] == ["iris.onnx"]


def test_an_uploaded_model_answers_over_tls(user: httpx.Client, iris: int) -> None:
    answer = predicted(user, [SETOSA, VIRGINICA])

    assert answer.json()["values"] == [0, 2]
    assert answer.headers["model-generation"] == str(iris)


def test_a_triton_client_calls_it_over_tls(trusting: ssl.SSLContext, iris: int) -> None:
    import numpy as np

    lengths = triton.InferInput("lengths", [2, 4], "FP32")
    lengths.set_data_from_numpy(np.array([SETOSA, VIRGINICA], np.float32))
    with closing(triton.InferenceServerClient("localhost", ssl=True, ssl_context_factory=lambda: trusting)) as client:
        result = client.infer("iris.onnx", [lengths])

    assert result.as_numpy("kind").tolist() == [0, 2]


def test_calls_spread_over_the_model_hosts_and_more_are_one_command_away(
    stack: Deployment, user: httpx.Client, iris: int
) -> None:
    eventually(lambda: two_hosts(user), every=ASK_EVERY)
    stack.compose("up", "--detach", "--no-recreate", "--scale", "modelhost=4", "modelhost")
    eventually(lambda: len(hosts_that_answer(user)) == 4, within=60, every=ASK_EVERY)
    stack.compose("up", "--detach", "--no-recreate", "--scale", "modelhost=2", "modelhost")

    eventually(lambda: two_hosts(user), within=60, every=ASK_EVERY)
    assert answered(user)


def test_what_stops_or_resizes_it_is_not_reachable_from_outside(admin: httpx.Client) -> None:
    for path in ("shutdown", "start_server", "kill_server", "update_workers", "support_update_status"):
        assert admin.post(f"/{path}", json={"SIGNATURE": "iris.onnx", "NR_WORKERS": 1}).status_code == 404, path
    assert admin.get("/metrics").status_code == 404

    assert answered(admin)


@pytest.mark.timeout(600)
def test_it_serves_and_takes_uploads_while_the_batch_path_is_down(
    stack: Deployment, admin: httpx.Client, tmp_path: Path, iris: int
) -> None:
    stack.compose("stop", "--timeout", "10", "private-api", "rabbitmq", "postgres", "job-consumer")
    try:
        assert answered(admin)
        assert put(admin, "picking.onnx", saved(picking(), tmp_path / "picking.onnx")).status_code == 201
        assert predicted(admin, [2, 0], "picking.onnx").json()["values"] == [30, 10]
        assert admin.delete("/api/v1/models/picking.onnx").status_code == 200
    finally:
        stack.make("up")


@pytest.mark.timeout(600)
def test_a_task_runs_while_the_online_path_is_down(
    stack: Deployment, user: httpx.Client, tmp_path: Path, iris: int
) -> None:
    stack.compose("stop", "online-gateway", "modelhost")
    try:
        with stack.client() as client:
            uid = client.submit("ct-body-mask", stack.folder / "ct.zip")
            client.wait(uid, RUN_SECONDS)
            client.download(uid, tmp_path / "out.zip")
    finally:
        stack.compose("start", "online-gateway", "modelhost")

    eventually(lambda: answered(user), within=60, every=ASK_EVERY)


def test_a_gateway_that_is_killed_serves_the_same_generation_again(
    stack: Deployment, engine: docker.DockerClient, admin: httpx.Client, iris: int
) -> None:
    newer = put(admin, "iris.onnx", IRIS).json()["generation"]
    assert newer == iris + 1

    kill(engine, *stack.containers("online-gateway"))

    answer = eventually(lambda: answered(admin), within=60, every=ASK_EVERY)
    assert answer.headers["model-generation"] == str(newer)


def test_a_model_host_that_is_killed_comes_back_and_the_other_answers_meanwhile(
    stack: Deployment, engine: docker.DockerClient, user: httpx.Client, iris: int
) -> None:
    before = eventually(lambda: two_hosts(user), every=ASK_EVERY)

    kill(engine, stack.containers("modelhost")[0])

    assert eventually(lambda: answered(user), within=5, every=ASK_EVERY)
    after = eventually(lambda: two_hosts(user), within=60, every=ASK_EVERY)
    assert len(before & after) == 1
    eventually(lambda: all(answered(user) for _ in range(10)), within=30, every=ASK_EVERY)


def two_hosts(client: httpx.Client) -> set[str]:
    hosts = hosts_that_answer(client)
    return hosts if len(hosts) == 2 else set()


def test_a_call_that_takes_more_memory_than_a_model_host_has_ends_that_host_alone(
    stack: Deployment, admin: httpx.Client, tmp_path: Path, iris: int
) -> None:
    before = eventually(lambda: two_hosts(admin), every=ASK_EVERY)
    assert put(admin, "greedy.onnx", saved(greedy(), tmp_path / "greedy.onnx")).status_code == 201
    assert predicted(admin, [1000], "greedy.onnx").json()["values"] == [1000]

    answer = predicted(admin, [3 * MODELHOST_MEMORY_MB * 2**20 // 4], "greedy.onnx")

    assert answer.status_code == 502, answer.text
    assert eventually(lambda: answered(admin), within=5, every=ASK_EVERY)
    after = eventually(lambda: two_hosts(admin), within=60, every=ASK_EVERY)
    assert len(before & after) == 1
    assert admin.delete("/api/v1/models/greedy.onnx").status_code == 200


def greedy() -> onnx.ModelProto:
    """The sum of ``n`` ones, each of which takes four bytes."""
    ones = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["ones"], value=ones),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=1),
    ]
    return model(nodes, [("n", TensorProto.INT64, [1])], [("sum", TensorProto.FLOAT, [1])])


def test_its_containers_are_locked_down_and_model_hosts_reach_the_gateway_alone(
    stack: Deployment, engine: docker.DockerClient
) -> None:
    gateway, host = (engine.containers.get(stack.containers(service)[0]) for service in ("online-gateway", "modelhost"))

    for container in (gateway, host):
        assert container.attrs["HostConfig"]["ReadonlyRootfs"]
        assert container.attrs["HostConfig"]["CapDrop"] == ["ALL"]
        assert container.attrs["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
        assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
    assert [mount["Destination"] for mount in host.attrs["Mounts"]] == ["/run/secrets/worker_token"]
    others = [f"{address}:{port}" for service, port in OTHERS.items() for address in addresses(engine, stack, service)]
    others.append("192.0.2.1:443")  # somewhere else, were there a way out
    dialled = host.exec_run(["python", "-c", DIAL, "online-gateway:5010", *others]).output.decode().splitlines()
    assert dialled == ["reached", *[NO_WAY] * len(others)]


def addresses(engine: docker.DockerClient, stack: Deployment, service: str) -> list[str]:
    """Those of a service's container on all its networks."""
    networks = engine.containers.get(stack.containers(service)[0]).attrs["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]

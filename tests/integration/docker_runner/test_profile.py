"""The profile of model containers, as the engine itself reports it."""

from pathlib import Path
from typing import Any

import docker
import pytest

from contracts.models import Limits
from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker import DockerRunner
from tests.support.docker_engine import MakeDockerRunner
from tests.support.model_runs import an_assignment, run_to_the_end, write_zip

LIMITS = Limits(
    timeout_seconds=9,
    memory_bytes=96 * 2**20,
    cpus=0.5,
    pids=33,
    shm_bytes=3 * 2**20,
    network="none",
    capabilities=("NET_BIND_SERVICE",),
)
CARD = "GPU-6a3a0b2e-0000-4000-8000-000000000001"


@pytest.fixture
def inspected(
    docker_engine: docker.DockerClient, runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> dict[str, Any]:
    run = runner.prepare(
        an_assignment(tiny_image, task_id=41, attempt=2, limits=LIMITS), write_zip(tmp_path / "z", {}), None
    )
    found: dict[str, Any] = docker_engine.api.inspect_container(run.container)
    run.discard()
    return found


def test_the_engine_reports_every_limit_of_the_model(inspected: dict[str, Any]) -> None:
    host = inspected["HostConfig"]

    assert host["Memory"] == host["MemorySwap"] == 96 * 2**20
    assert host["NanoCpus"] == 500_000_000
    assert host["PidsLimit"] == 33
    assert host["ShmSize"] == 3 * 2**20
    assert host["NetworkMode"] == "none"
    assert host["CapAdd"] == ["NET_BIND_SERVICE"]


def test_the_engine_reports_the_fixed_part_of_the_profile(inspected: dict[str, Any]) -> None:
    host = inspected["HostConfig"]

    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert host["IpcMode"] == "private"
    assert host["PidMode"] == ""
    assert host["Init"] is True
    assert host["AutoRemove"] is False
    assert host["RestartPolicy"]["Name"] == "no"
    assert not host["OomKillDisable"]
    assert not host["Binds"]
    assert not host["Devices"]
    assert not host["DeviceRequests"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "6m"}}
    assert {(limit["Name"], limit["Hard"]) for limit in host["Ulimits"]} == {("nofile", 16384), ("core", 0)}


def test_labels_tell_whose_the_container_is_and_the_uid_stands_nowhere(
    inspected: dict[str, Any], installation: str
) -> None:
    labels = inspected["Config"]["Labels"]

    assert labels["inference-server.installation"] == installation
    assert labels["inference-server.task"] == "41"
    assert labels["inference-server.attempt"] == "2"
    assert labels["inference-server.consumer"].startswith("consumer-")
    assert labels["inference-server.kind"] == "run"
    assert "41-2" in inspected["Name"]
    assert "uid-of-task" not in str(inspected)


def test_an_shm_of_nothing_is_not_the_engines_default(
    docker_engine: docker.DockerClient, runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    none_asked = LIMITS.model_copy(update={"shm_bytes": 0})

    run = runner.prepare(an_assignment(tiny_image, limits=none_asked), write_zip(tmp_path / "z", {}), None)
    size = docker_engine.api.inspect_container(run.container)["HostConfig"]["ShmSize"]
    run.discard()

    assert size == 4096


def test_more_cores_than_the_host_has_are_all_cores(
    docker_engine: docker.DockerClient, runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    many = LIMITS.model_copy(update={"cpus": 10_000})

    run = runner.prepare(an_assignment(tiny_image, limits=many), write_zip(tmp_path / "z", {}), None)
    cores = docker_engine.api.inspect_container(run.container)["HostConfig"]["NanoCpus"]
    run.discard()

    assert cores == docker_engine.info()["NCPU"] * 1_000_000_000


def test_a_gpu_model_gets_the_consumers_card_and_no_other(
    docker_engine: docker.DockerClient,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    runner = make_docker_runner(scratch, gpu_uuid=CARD)

    run = runner.prepare(an_assignment(tiny_image, use_gpu=True), write_zip(tmp_path / "z", {}), None)
    inspected = docker_engine.api.inspect_container(run.container)
    run.discard()

    (request,) = inspected["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == [CARD]
    assert request["Capabilities"] == [["gpu"]]
    assert request["Count"] == 0
    assert f"NVIDIA_VISIBLE_DEVICES={CARD}" in inspected["Config"]["Env"]


def test_a_cpu_model_gets_no_card_also_on_a_consumer_that_has_one(
    docker_engine: docker.DockerClient,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    make_image: Any,
    tmp_path: Path,
) -> None:
    runner = make_docker_runner(scratch, gpu_uuid=CARD)

    run = runner.prepare(an_assignment(make_image("true")), write_zip(tmp_path / "z", {}), None)
    inspected = docker_engine.api.inspect_container(run.container)
    run.discard()

    assert not inspected["HostConfig"]["DeviceRequests"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in inspected["Config"]["Env"]


def test_a_gpu_model_is_no_work_for_a_consumer_without_a_card(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match="needs a GPU"):
        runner.prepare(an_assignment(tiny_image, use_gpu=True), write_zip(tmp_path / "z", {}), None)


def test_a_card_that_the_engine_cannot_give_is_the_platforms_trouble(
    make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str, tmp_path: Path
) -> None:
    runner = make_docker_runner(scratch, gpu_uuid=CARD)

    with pytest.raises(RunnerError, match="did not start the container"):
        run_to_the_end(runner, an_assignment(tiny_image, use_gpu=True), tmp_path, {"run.sh": "true"})

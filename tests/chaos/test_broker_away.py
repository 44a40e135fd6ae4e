"""RabbitMQ is away: posts are accepted, running tasks end, waiting ones run once it is back."""

from pathlib import Path

import pytest

from contracts.models import RequestedLimits
from contracts.task_state import TaskState
from contracts.tasks import Step
from inference_client import InferenceClient
from tests.support.hostile_models import tag_of, zip_of
from tests.support.platform import LEASE_SECONDS, Platform, PlatformMaker
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import eventually


@pytest.fixture
def platform(make_platform: PlatformMaker, rabbitmq_url: str) -> Platform:
    return make_platform(rabbitmq_url=rabbitmq_url)


def add_models(client: InferenceClient) -> None:
    for name in ("echo_tree", "sleeps"):
        client.add_model(name, tag_of(name), limits=RequestedLimits(timeout_seconds=60))


def test_a_task_posted_while_the_broker_is_stopped_runs_once_it_is_back(
    platform: Platform, rabbit_node: RabbitNode, all_models_folder: Path, input_zip: Path
) -> None:
    consumer = platform.start_consumer("process", MODELS_FOLDER=str(all_models_folder))
    with platform.client() as client:
        add_models(client)
        client.wait(client.submit("echo_tree", input_zip), 60)

        rabbit_node.stop()
        uids = [client.submit("echo_tree", input_zip) for _ in range(5)]
        assert {client.state(uid) for uid in uids} == {TaskState.PENDING}
        eventually(lambda: "broker is away" in (client.status(uids[0]).waiting_for or ""), 60)
        rabbit_node.start()

        for uid in uids:
            assert client.wait(uid, 60).attempt == 1
    assert consumer.process.poll() is None


def test_a_running_task_outlives_a_broker_that_is_away_for_longer_than_its_lease(
    platform: Platform, rabbit_node: RabbitNode, all_models_folder: Path, tmp_path: Path
) -> None:
    platform.start_consumer("process", MODELS_FOLDER=str(all_models_folder))
    sent = zip_of(tmp_path / "in.zip", {"seconds": str(int(2 * LEASE_SECONDS))})
    with platform.client() as client:
        client.add_model("takes_its_time", tag_of("takes_its_time"))
        uid = client.submit("takes_its_time", sent)
        eventually(lambda: client.status(uid).step is Step.RUN, 60)

        rabbit_node.stop()
        status = client.wait(uid, 60)
        rabbit_node.start()

    assert status.attempt == 1


def test_both_sides_start_without_a_broker(
    make_platform: PlatformMaker, rabbitmq_url: str, rabbit_node: RabbitNode, all_models_folder: Path, input_zip: Path
) -> None:
    rabbit_node.stop()

    platform = make_platform(rabbitmq_url=rabbitmq_url)
    platform.start_consumer("process", MODELS_FOLDER=str(all_models_folder))
    with platform.client() as client:
        add_models(client)
        uid = client.submit("echo_tree", input_zip)
        rabbit_node.start()

        assert client.wait(uid, 60).attempt == 1


def test_a_hundred_tasks_and_a_broker_killed_in_the_middle_lose_nothing(
    platform: Platform, rabbit_node: RabbitNode, all_models_folder: Path, input_zip: Path
) -> None:
    for _ in range(2):
        platform.start_consumer("process", MODELS_FOLDER=str(all_models_folder))
    with platform.client() as client:
        add_models(client)
        uids = [client.submit("echo_tree", input_zip) for _ in range(50)]
        rabbit_node.kill()
        uids += [client.submit("echo_tree", input_zip) for _ in range(50)]
        rabbit_node.start()

        attempts = [client.wait(uid, 120).attempt for uid in uids]

    assert attempts == [1] * 100

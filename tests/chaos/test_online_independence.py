"""The gateway serves while everything of the batch path dies, and the batch path works while the gateway is gone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.hostile_models import zip_of
from tests.support.online_load import OnlineLoad
from tests.support.standalone import InferUp
from tests.support.told_endpoints import WHO
from tests.support.waiting import eventually

BATCH = ("private_api", "public_api", "job_consumer")


@pytest.fixture
def up(tmp_path: Path, all_models_folder: Path) -> Iterator[InferUp]:
    modules = tmp_path / "endpoints"
    modules.mkdir()
    (modules / "who.py").write_text(WHO)
    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps({"CONFIG_ENDPOINTS": {"who": {"NR_WORKERS": 2}}}))
    options = ("--examples", "--runner", "process", "--models", str(all_models_folder), "--endpoints", str(file))
    with InferUp(tmp_path / "up", *options) as running:
        yield running


def gateway_and_others(up: InferUp) -> tuple[psutil.Process, list[psutil.Process]]:
    """The child that listens where the gateway is reached, and those of the batch path."""
    port = int(up.online_url.rpartition(":")[2])
    children = psutil.Process(up.process.pid).children()
    (gateway,) = [one for one in children if any(_listens_on(port, place) for place in one.net_connections())]
    return gateway, [one for one in children if one != gateway]


def all_of_batch(up: InferUp) -> list[psutil.Process]:
    """The services of the batch path; none while one is missing."""
    _, others = gateway_and_others(up)
    return others if len(others) == len(BATCH) else []


def _listens_on(port: int, place: Any) -> bool:
    return bool(place.status == psutil.CONN_LISTEN and place.laddr.port == port)


def post(up: InferUp, folder: Path) -> str:
    """The uid of a new task."""
    files = {"zip_file": zip_of(folder / "in.zip", {"a": "b"}).read_bytes()}
    query = {"model_human_readable_id": "pass-through"}
    answer = httpx.post(f"{up.url}/api/tasks/", params=query, files=files, timeout=60, trust_env=False)
    return str(answer.raise_for_status().json())


def posted(up: InferUp, folder: Path) -> str | None:
    """The uid of a new task; None while the batch path is down."""
    try:
        return post(up, folder)
    except httpx.HTTPError:
        return None


def is_finished(up: InferUp, uid: str) -> bool:
    try:
        answer = httpx.get(f"{up.url}/api/tasks/{uid}", params={"wait": 5}, timeout=60, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def test_calls_are_answered_while_the_batch_services_are_killed_again_and_again(up: InferUp, tmp_path: Path) -> None:
    with OnlineLoad(up.online_url, {"SIGNATURE": "who"}, connections=8) as load:
        load.wait_calls(50)
        for _ in range(2):
            batch = eventually(lambda: all_of_batch(up), 60)
            for process in batch:
                process.kill()
            eventually(lambda gone=batch: not any(process.is_running() for process in gone))  # type: ignore[misc]
            load.wait_calls(200)
        uid = eventually(lambda: posted(up, tmp_path), 60)
        eventually(lambda: is_finished(up, uid), 60)
        load.stop()

    assert load.failures == []


def test_a_task_is_posted_and_ends_while_the_gateway_is_killed(up: InferUp, tmp_path: Path) -> None:
    gateway, _ = gateway_and_others(up)
    with OnlineLoad(up.online_url, {"SIGNATURE": "who"}, connections=4) as load:
        load.wait_calls(50)
        before = load.answers("pid")

        gateway.kill()
        uid = post(up, tmp_path)
        eventually(lambda: is_finished(up, uid), 60)
        load.wait_calls(50)

    assert load.answers("pid") == before

"""The client and refusals for too many requests (429): every call outlasts them, within a bound, as the server paces it."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import inference_client as ic
from contracts.task_state import TaskState
from tests.support.wire_script import zip_of
from tests.support.wire_server import WireServer, running_wire_server

UID = "AbCdEfGh" + "x" * 35
PATIENCE_SECONDS = 30
MACHINE_SECONDS = 10
"""How much later than it should a busy machine may let us be."""

CALLS: dict[str, tuple[str, str, Callable[[ic.InferenceClient, Path], object]]] = {
    "list_models": ("GET", "/api/models/", lambda client, _: client.list_models()),
    "get_model": ("GET", "/api/models/m", lambda client, _: client.get_model("m")),
    "add_model": ("POST", "/api/models/", lambda client, package: client.add_model("n", "i:1", content=package)),
    "remove_model": ("DELETE", "/api/models/m", lambda client, _: client.remove_model("m")),
    "submit": ("POST", "/api/tasks/", lambda client, package: client.submit("m", package)),
    "state": ("GET", f"/api/tasks/{UID}/status", lambda client, _: client.state(UID)),
    "logs": ("GET", f"/api/tasks/{UID}/logs", lambda client, _: client.logs(UID)),
    "cancel": ("POST", f"/api/tasks/{UID}/cancel", lambda client, _: client.cancel(UID)),
    "delete": ("DELETE", f"/api/tasks/{UID}", lambda client, _: client.delete(UID)),
}


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with running_wire_server() as server:
        server.model("m")
        yield server


@pytest.fixture
def client(wire: WireServer) -> Iterator[ic.InferenceClient]:
    with ic.InferenceClient(wire.url, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "input.zip"
    path.write_bytes(zip_of(**{"a.txt": b"input"}))
    return path


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_made_again_until_it_passes(
    name: str, wire: WireServer, client: ic.InferenceClient, package: Path
) -> None:
    method, path, call = CALLS[name]
    wire.task(UID, states=[TaskState.RUNNING])
    wire.happens(method, path, status=429, body=b"Too Many Requests", headers={"Retry-After": "0"}, times=2)

    call(client, package)

    assert len(wire.requests(method, path)) == 3
    assert wire.files == ([package.read_bytes()] if name in ("submit", "add_model") else [])


def test_a_post_that_is_refused_in_mid_upload_is_sent_whole_the_next_time(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    package = tmp_path / "large.zip"
    package.write_bytes(bytes(8 * 2**20))
    wire.happens("POST", "/api/tasks/", status=429, before_body=True)
    told: list[tuple[int, int | None]] = []

    uid = client.submit("m", package, lambda sent, total: told.append((sent, total)))

    assert uid in wire.tasks
    assert wire.files == [package.read_bytes()]
    assert told[-1] == (8 * 2**20, 8 * 2**20)


def test_the_server_says_when_the_next_try_may_come(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.happens("GET", "/api/models/", status=429, headers={"Retry-After": "1"})

    began = time.monotonic()
    client.list_models()

    assert time.monotonic() - began >= 1


def test_a_pause_beyond_the_timeout_is_not_begun(wire: WireServer, client: ic.InferenceClient, package: Path) -> None:
    wire.happens("POST", "/api/tasks/", status=429, detail="Not today.", headers={"Retry-After": "3600"})

    began = time.monotonic()
    with pytest.raises(ic.RequestRefused, match="Not today") as refused:
        client.submit("m", package)

    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert (refused.value.status, refused.value.retry_after) == (429, timedelta(hours=1))
    assert len(wire.requests("POST", "/api/tasks/")) == 1


def test_who_is_refused_all_the_time_gives_up_within_the_timeout(wire: WireServer) -> None:
    wire.happens("GET", "/api/models/", status=429, times=1000)

    began = time.monotonic()
    with ic.InferenceClient(wire.url, timeout=1) as client, pytest.raises(ic.RequestRefused) as refused:
        client.list_models()

    assert refused.value.status == 429
    assert time.monotonic() - began < 1 + MACHINE_SECONDS
    assert 1 < len(wire.requests("GET", "/api/models/")) < 10

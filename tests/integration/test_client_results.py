"""The client against a real HTTP server that speaks the wire: waiting for a task, and fetching its output."""

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import inference_client as ic
from contracts.task_state import TaskState
from contracts.tasks import TaskStatus
from tests.support.wire_server import WireServer, running_wire_server

PENDING, RUNNING, FINISHED = TaskState.PENDING, TaskState.RUNNING, TaskState.FINISHED
UID = "AbCdEfGh" + "x" * 35
TASK = f"/api/tasks/{UID}"


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with running_wire_server() as server:
        yield server


@pytest.fixture
def client(wire: WireServer) -> Iterator[ic.InferenceClient]:
    with ic.InferenceClient(wire.url, timeout=5) as client:
        yield client


def test_the_statuses_of_a_wait_are_told_until_the_end(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID, states=[PENDING, RUNNING, FINISHED])
    seen: list[TaskState] = []

    def look(status: TaskStatus) -> None:
        seen.append(status.state)

    assert client.wait(UID, timeout=30, on_status=look).state is FINISHED
    assert seen == [PENDING, RUNNING, FINISHED]


def test_a_wait_holds_one_poll_of_a_minute_and_asks_for_one_byte(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID)

    client.wait(UID, timeout=timedelta(hours=1))

    (poll,) = wire.requests("GET", TASK)
    assert poll.query["wait"] == ["60"]
    assert poll.headers["range"] == "bytes=0-0"


def test_a_wait_that_times_out_says_that_the_task_goes_on(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID, states=[RUNNING])
    wire.holds_polls = True

    with pytest.raises(ic.WaitTimedOut, match=r"AbCdEfGh… was not over within 1\.2 s; it goes on") as error:
        client.wait(UID, timeout=1.2)

    assert error.value.uid == UID
    assert UID not in str(error.value)
    assert len(wire.requests("GET", TASK)) <= 3


def test_an_older_server_that_answers_at_once_is_not_asked_without_pause(
    wire: WireServer, client: ic.InferenceClient
) -> None:
    wire.task(UID, states=[RUNNING])

    with pytest.raises(ic.WaitTimedOut):
        client.wait(UID, timeout=1.5)

    assert len(wire.requests("GET", TASK)) <= 4


def test_a_wait_survives_a_server_that_is_away_for_a_while(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID)
    wire.happens("GET", TASK, status=503, headers={"Retry-After": "0"})
    wire.happens("GET", TASK, status=502, body=b"<html>Bad Gateway</html>")
    wire.happens("GET", TASK, cut_after=-1)
    troubles: list[str] = []

    status = client.wait(UID, timeout=30, on_trouble=lambda error: troubles.append(type(error).__name__))

    assert status.state is FINISHED
    assert troubles == ["RequestRefused", "RequestRefused", "ServerUnreachable"]


def test_a_wait_for_a_server_that_stays_away_ends_with_the_trouble(
    wire: WireServer, client: ic.InferenceClient
) -> None:
    wire.happens("GET", TASK, status=503, detail="Closed today.", times=1000)

    with pytest.raises(ic.WaitTimedOut, match=r"The last answer was: Closed today\."):
        client.wait(UID, timeout=0.5)


def test_an_error_of_the_servers_own_ends_the_wait(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID)
    wire.happens("GET", TASK, status=500, detail="An error of its own.")

    with pytest.raises(ic.RequestRefused, match="An error of its own"):
        client.wait(UID, timeout=30)


def test_a_failed_task_brings_its_reason_and_log(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID, states=[TaskState.FAILED], error="The model ended with exit code 3.", exit_code=3, log="Traceback")

    with pytest.raises(ic.TaskFailed, match=r"The model ended with exit code 3\.") as error:
        client.wait(UID, timeout=30)

    assert error.value.status.exit_code == 3
    assert error.value.log_tail == "Traceback"


def test_a_cancelled_task_is_told_apart_from_a_failed_one(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.task(UID, states=[RUNNING])

    client.cancel(UID)

    with pytest.raises(ic.TaskCancelled):
        client.wait(UID, timeout=30)
    with pytest.raises(ic.RequestRefused, match="cancelled already"):
        client.cancel(UID)


def test_an_output_that_is_gone_is_told(wire: WireServer, client: ic.InferenceClient, tmp_path: Path) -> None:
    wire.task(UID, output_gone=True)

    with pytest.raises(ic.OutputMissing, match="cleaned away"):
        client.wait(UID, timeout=30)
    with pytest.raises(ic.OutputMissing, match="cleaned away"):
        client.download(UID, tmp_path / "out.zip")


def test_a_deleted_task_is_not_found_by_any_call(wire: WireServer, client: ic.InferenceClient, tmp_path: Path) -> None:
    wire.task(UID)

    client.delete(UID)

    for call in (client.status, client.logs, client.cancel, client.delete, client.wait):
        with pytest.raises(ic.TaskNotFound, match="AbCdEfGh…"):
            call(UID)
    with pytest.raises(ic.TaskNotFound):
        client.download(UID, tmp_path / "out.zip")


def test_a_download_of_a_task_that_is_not_over_is_refused(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    wire.task(UID, states=[RUNNING])

    with pytest.raises(ic.TaskUnfinished):
        client.download(UID, tmp_path / "out.zip")

    assert list(tmp_path.iterdir()) == []


def test_a_download_cut_twice_goes_on_where_it_stopped(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    output = os.urandom(500_000)
    wire.task(UID, output=output)
    wire.happens("GET", TASK, cut_after=100_000)
    wire.happens("GET", TASK, status=503, headers={"Retry-After": "0"})
    wire.happens("GET", TASK, cut_after=50_000)
    told: list[int] = []

    client.download(UID, tmp_path / "out.zip", lambda received, _: told.append(received))

    assert (tmp_path / "out.zip").read_bytes() == output
    assert told == sorted(told)
    assert told[-1] == len(output)
    ranges = [seen.headers.get("range") for seen in wire.requests("GET", TASK)]
    assert ranges == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert wire.requests("GET", TASK)[1].headers["if-range"] == f'"{hashlib.sha256(output).hexdigest()}"'


def test_an_output_that_changed_after_a_cut_is_fetched_from_its_beginning(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    task = wire.task(UID, output=b"old" * 1000)
    wire.happens("GET", TASK, cut_after=1000)
    task.announced_sha256 = hashlib.sha256(b"new" * 1000).hexdigest()
    changed = False

    def change(_received: int, _total: int | None) -> None:
        nonlocal changed
        if not changed:
            task.output, changed = b"new" * 1000, True

    client.download(UID, tmp_path / "out.zip", change)

    assert (tmp_path / "out.zip").read_bytes() == b"new" * 1000


def test_a_download_that_stays_cut_ends_and_leaves_what_was_there(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    wire.task(UID)
    wire.happens("GET", TASK, cut_after=3)
    wire.happens("GET", TASK, cut_after=0, times=1000)
    (tmp_path / "out.zip").write_bytes(b"from before")

    with pytest.raises(ic.ServerUnreachable):
        client.download(UID, tmp_path / "out.zip", patience=0.5)

    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]
    assert (tmp_path / "out.zip").read_bytes() == b"from before"


def test_bytes_that_are_not_the_announced_ones_are_refused(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    wire.task(UID, announced_sha256="f" * 64)

    with pytest.raises(ic.OutputDamaged, match="SHA-256"):
        client.download(UID, tmp_path / "out.zip")

    assert list(tmp_path.iterdir()) == []

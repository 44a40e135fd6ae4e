"""The life of a task as its user sees it."""

import asyncio
import secrets
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts import routes
from contracts.tasks import ConsumerPresence, Outcome
from private_api.services.tasks import new_uid
from private_api.storage.files import BlobKind
from tests.support.private_api import Api, MakeApi, make_zip
from tests.support.waiting import eventually


def test_a_task_goes_from_post_to_output(api: Api) -> None:
    sent = make_zip({"out/ä.txt": b"result"})
    uid = api.new_task()
    assert api.poll(uid).status_code == 551

    claim = api.claim(uid).json()
    assert api.poll(uid).status_code == 551
    assert api.succeed(uid, claim["attempt"], body=sent).json() == {"state": "finished"}

    answer = api.poll(uid)
    assert answer.status_code == 200
    assert answer.content == sent
    assert answer.headers["content-length"] == str(len(sent))
    assert api.status(uid)["output"]["sha256"] == answer.headers["etag"].strip('"')


def test_an_output_is_served_in_ranges_and_to_head(sqlite_api: Api) -> None:
    uid = sqlite_api.new_task()
    sqlite_api.claim(uid)
    sent = make_zip({"x": b"0123456789" * 100})
    sqlite_api.succeed(uid, body=sent)

    part = sqlite_api.http.get(routes.TASK.format(uid=uid), headers={"Range": "bytes=10-19"})
    head = sqlite_api.http.head(routes.TASK.format(uid=uid))

    assert (part.status_code, part.content) == (206, sent[10:20])
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(sent)))


def test_a_poll_never_says_not_found_right_after_the_post(api: Api) -> None:
    api.register()

    def post_and_poll(_: int) -> int:
        with httpx.Client(base_url=api.url, headers=api.http.headers, timeout=30) as client:
            posted = client.post(
                routes.TASKS, params={"model_human_readable_id": "m"}, files={"zip_file": ("i.zip", make_zip())}
            )
            return client.get(routes.TASK.format(uid=posted.json())).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(post_and_poll, range(40)))

    assert set(statuses) == {551}


def test_the_input_reaches_the_consumer_unchanged_and_is_gone_at_the_end(api: Api) -> None:
    sent = make_zip({"deep/er/ü.bin": bytes(range(256))})
    api.register()
    uid = api.post(sent).json()
    api.claim(uid)

    assert api.http.get(routes.TASK_INPUT.format(uid=uid)).content == sent
    api.finish(uid, Outcome.MODEL_FAILED, reason="It broke.")

    assert api.http.get(routes.TASK_INPUT.format(uid=uid)).status_code == 404
    assert api.files() == []


@pytest.mark.parametrize("uid", ["unknown", "x" * 500, "a%00b", "ü", "' OR 1=1 --"])
def test_an_unknown_uid_is_554_on_the_polling_route_and_404_elsewhere(api: Api, uid: str) -> None:
    assert api.poll(uid).status_code == 554
    assert api.poll(uid).json()["code"] == "unknown_task"
    for path in (routes.TASK_STATUS, routes.TASK_LOGS, routes.TASK_INPUT):
        assert api.http.get(path.format(uid=uid)).status_code == 404
    assert api.http.delete(routes.TASK.format(uid=uid)).status_code == 404
    assert api.claim(uid).status_code == 409
    assert api.heartbeat(uid).status_code == 409


def test_a_failed_task_says_why_and_keeps_its_log(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)

    api.finish(
        uid,
        Outcome.MODEL_FAILED,
        reason="Out of memory.",
        exit_code=137,
        log_tail="line\x00 1\nlast",
        step_seconds={"run": 2.5},
    )

    answer = api.poll(uid)
    assert (answer.status_code, answer.json()) == (552, {"detail": "Out of memory.", "code": "failed"})
    log = api.http.get(routes.TASK_LOGS.format(uid=uid))
    assert log.headers["content-type"].startswith("text/plain")
    assert log.text == "line\N{REPLACEMENT CHARACTER} 1\nlast"
    status = api.status(uid)
    assert (status["exit_code"], status["error"]) == (137, "Out of memory.")
    assert status["attempts"][0]["step_seconds"] == {"run": 2.5}


def test_a_finished_task_whose_file_is_gone_is_553(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    api.succeed(uid)
    [name] = api.files()
    api.wiring.files.path(name).unlink()

    answer = api.poll(uid)

    assert (answer.status_code, answer.json()["code"]) == (553, "output_missing")


def test_cancelling_a_pending_task_keeps_its_record(api: Api) -> None:
    uid = api.new_task()

    first = api.http.post(routes.TASK_CANCEL.format(uid=uid))
    again = api.http.post(routes.TASK_CANCEL.format(uid=uid))

    assert first.json() == again.json() == {"state": "cancelled"}
    assert (api.poll(uid).status_code, api.poll(uid).json()["code"]) == (552, "cancelled")
    assert api.claim(uid).status_code == 409
    assert api.files() == []


def test_a_task_that_is_over_cannot_be_cancelled(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    api.succeed(uid)

    answer = api.http.post(routes.TASK_CANCEL.format(uid=uid))

    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
    assert api.poll(uid).status_code == 200


def test_a_deleted_task_is_unknown_and_leaves_no_file(api: Api) -> None:
    pending, running, ended = api.new_task(), api.new_task(), api.new_task()
    api.claim(running)
    api.put_output(running)
    api.claim(ended)
    api.succeed(ended)

    answers = [api.http.delete(routes.TASK.format(uid=uid)).status_code for uid in (pending, running, ended)]

    assert answers == [200, 200, 200]
    assert [api.poll(uid).status_code for uid in (pending, running, ended)] == [554, 554, 554]
    assert api.files() == []
    assert api.http.delete(routes.TASK.format(uid=ended)).status_code == 404


def test_waiting_polls_answer_when_the_task_ends_and_not_before(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(api.poll(uid, wait=50)))
    waiting.start()
    eventually(lambda: uid in api.wiring.wakeups._ends)
    began = time.monotonic()

    api.finish(uid, Outcome.MODEL_FAILED, reason="Broken.")
    waiting.join(60)

    assert answers[0].status_code == 552
    assert time.monotonic() - began < 30


def test_waiting_in_vain_answers_where_the_task_stands(sqlite_api: Api) -> None:
    uid = sqlite_api.new_task()

    assert sqlite_api.poll(uid, wait=0.2).status_code == 551
    assert sqlite_api.poll("unknown", wait=5).status_code == 554
    assert sqlite_api.poll(uid, wait=61).status_code == 422


def test_the_position_counts_the_tasks_ahead_in_the_same_queue(api: Api) -> None:
    api.register("gpu-model", use_gpu="True")
    first, other, second = api.new_task(), api.new_task("gpu-model"), api.new_task()

    assert [api.status(uid)["position"] for uid in (first, other, second)] == [1, 1, 2]
    api.claim(first)
    assert [api.status(uid)["position"] for uid in (first, second)] == [None, 1]


def test_a_pending_task_says_what_it_waits_for(sqlite_api: Api) -> None:
    api = sqlite_api
    api.register("gpu-model", use_gpu="True")
    uid, other = api.new_task("gpu-model"), api.new_task()
    said = [api.status(uid)["waiting_for"]]

    cpu = ConsumerPresence(host="h", has_gpu=False, runner="docker").model_dump()
    api.http.put(routes.CONSUMER.format(consumer="c1"), json=cpu).raise_for_status()
    said.append(api.status(uid)["waiting_for"])
    said.append(api.status(other)["waiting_for"])
    api.claim(other)
    said.append(api.status(api.new_task())["waiting_for"])

    assert said == [
        "No consumer is connected; the task starts when the operator starts one.",
        "The model needs a GPU, and no consumer with a GPU is connected.",
        "A consumer is about to take it.",
        "The only consumer is busy.",
    ]


def test_a_pending_task_says_why_the_consumers_that_are_there_do_not_take_it(sqlite_api: Api) -> None:
    api = sqlite_api
    uid = api.new_task()

    def said_when(**presence: Any) -> str:
        body = ConsumerPresence(host="h", has_gpu=True, runner="docker", **presence).model_dump()
        api.http.put(routes.CONSUMER.format(consumer="c1"), json=body).raise_for_status()
        return str(api.status(uid)["waiting_for"])

    assert said_when(takes_cpu=False) == "All connected consumers are kept for models that need a GPU."
    assert said_when(trouble="The scratch disk is full.") == "No consumer can work now. The scratch disk is full."
    assert said_when() == "A consumer is about to take it."


def test_ended_tasks_past_their_time_are_removed_with_their_files(api: Api) -> None:
    old, young = api.new_task(), api.new_task()
    for uid in (old, young):
        api.claim(uid)
        api.succeed(uid)
    api.wiring.retention._keep = timedelta(hours=1)
    api.execute(f"UPDATE tasks SET ended_at = ended_at - 3700 WHERE uid = '{old}'")

    api.tidy()

    assert [api.poll(uid).status_code for uid in (old, young)] == [554, 200]
    assert len(api.files()) == 1


def test_tombstones_are_purged_after_a_day(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    api.http.delete(routes.TASK.format(uid=uid))
    api.tidy()
    assert api.heartbeat(uid).json()["cancel"] is True

    api.execute("UPDATE tasks SET deleted_at = deleted_at - 90000")
    api.tidy()

    assert api.heartbeat(uid).status_code == 409


def test_a_post_that_is_called_off_during_its_commit_leaves_the_row_its_file(
    make_sqlite_api: MakeApi, tmp_path: Path
) -> None:
    api = make_sqlite_api()
    api.register("m")
    loop, services = api.loop, api.wiring.services
    model = asyncio.run_coroutine_threadsafe(services.models.find("m"), loop).result(60)
    blob = asyncio.run_coroutine_threadsafe(
        services.files.receive(BlobKind.INPUT, chunks_of(make_zip()), 2**20), loop
    ).result(60)

    with closing(sqlite3.connect(tmp_path / "platform.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        posting = asyncio.run_coroutine_threadsafe(services.tasks.post(model, blob), loop)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 0.3)  # long enough for the writer to wait for the lock
        posting.cancel()
        other.execute("COMMIT")
        eventually(lambda: other.execute("SELECT count(*) FROM tasks").fetchone() == (1,))

    api.look_at_leases()  # queues behind whatever else the post had to do
    assert api.files() == [blob.name]


@pytest.mark.parametrize(("wanted", "status"), [("bytes=99999-", 416), ("pages=1", 400)])
def test_a_range_that_cannot_be_had_is_refused_in_json(sqlite_api: Api, wanted: str, status: int) -> None:
    uid = sqlite_api.new_task()
    sqlite_api.claim(uid)
    sqlite_api.succeed(uid)

    answer = sqlite_api.http.get(routes.TASK.format(uid=uid), headers={"Range": wanted})

    assert answer.status_code == status
    assert "bytes=FIRST-LAST" in answer.json()["detail"]


def test_an_output_that_the_client_has_is_not_sent_again(sqlite_api: Api) -> None:
    uid = sqlite_api.new_task()
    sqlite_api.claim(uid)
    sqlite_api.succeed(uid)
    etag = sqlite_api.poll(uid).headers["etag"]

    same = sqlite_api.http.get(routes.TASK.format(uid=uid), headers={"If-None-Match": f'"other", {etag}'})
    other = sqlite_api.http.get(routes.TASK.format(uid=uid), headers={"If-None-Match": '"other"'})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert (other.status_code, other.content) == (200, make_zip())


def test_no_uid_looks_like_an_option_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-starts-with-a-dash", "good"])
    monkeypatch.setattr(secrets, "token_urlsafe", lambda _: next(drawn))

    assert new_uid() == "good"


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    yield data

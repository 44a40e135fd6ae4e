"""Claims, heartbeats, outputs and reports: what is granted, what is fenced off."""

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contracts import routes
from contracts.tasks import AttemptRef, ConsumerPresence, Outcome
from tests.support.private_api import Api, MakeApi, make_zip
from tests.support.waiting import eventually


def test_one_of_many_claims_is_granted(api: Api) -> None:
    uid = api.new_task()

    def claim(number: int) -> int:
        body = {"consumer": f"c{number}", "has_gpu": False}
        return httpx.post(api.url + routes.CLAIM.format(uid=uid), json=body, headers=api.http.headers).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(claim, range(8)))

    assert statuses == [200] + [409] * 7
    assert api.status(uid)["attempt"] == 1


def test_a_claim_whose_answer_was_lost_may_be_repeated_until_the_first_heartbeat(api: Api) -> None:
    uid = api.new_task()
    first = api.claim(uid).json()

    assert api.claim(uid).json() == first
    assert api.claim(uid, "c2").status_code == 409

    api.heartbeat(uid)
    assert api.claim(uid).status_code == 409
    assert api.status(uid)["attempt"] == 1


def test_a_consumer_without_a_gpu_gets_no_gpu_task(api: Api) -> None:
    api.register("gpu-model", use_gpu="True")
    uid = api.new_task("gpu-model")

    refused = api.claim(uid, "cpu", has_gpu=False)

    assert (refused.status_code, refused.json()["code"]) == (409, "claim_refused")
    assert api.claim(uid, "gpu", has_gpu=True).status_code == 200


@pytest.mark.parametrize("consumer", ["", "x" * 129, "a\nb", "a\x00b"])
def test_a_consumer_id_that_the_database_would_not_take_is_refused(api: Api, consumer: str) -> None:
    assert api.claim(api.new_task(), consumer).status_code == 422


def test_a_heartbeat_shows_the_step_and_extends_the_lease(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    api.execute("UPDATE tasks SET lease_until = lease_until - 29")

    answer = api.heartbeat(uid).json()
    api.look_at_leases()
    api.execute("UPDATE tasks SET lease_until = lease_until - 15")
    api.look_at_leases()

    assert answer == {"lease_seconds": 30.0, "cancel": False}
    assert (api.status(uid)["state"], api.status(uid)["step"]) == ("running", "run")


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_a_running_attempt_learns_of_a_cancel_at_its_heartbeat(api: Api, verb: str) -> None:
    uid = api.new_task()
    api.claim(uid)
    if verb == "cancel":
        api.http.post(routes.TASK_CANCEL.format(uid=uid))
    else:
        api.http.delete(routes.TASK.format(uid=uid))

    assert api.heartbeat(uid).json()["cancel"] is True
    assert api.heartbeat(uid, consumer="other").status_code == 409
    assert api.put_output(uid).status_code == 409
    assert api.finish(uid, Outcome.CANCELLED).json() == {"state": "cancelled"}
    assert api.finish(uid, Outcome.CANCELLED).json() == {"state": "cancelled"}
    assert api.files() == []


def test_an_attempt_that_ends_well_after_the_cancel_changes_nothing(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    body = make_zip()
    ref = api.put_output(uid, body=body).json()
    api.http.post(routes.TASK_CANCEL.format(uid=uid))

    answer = api.finish(uid, Outcome.SUCCEEDED, output=ref)

    assert answer.json() == {"state": "cancelled"}
    assert api.poll(uid).status_code == 552
    assert api.files() == []


def test_every_write_of_a_stale_attempt_is_refused_counted_and_changes_nothing(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid, "old")
    api.heartbeat(uid, 1, "old")
    api.lapse(uid)
    api.claim(uid, "new")
    before = api.status(uid)

    refused = [
        api.heartbeat(uid, 1, "old"),
        api.put_output(uid, 1, "old"),
        api.finish(uid, Outcome.MODEL_FAILED, 1, "old", reason="Stale."),
        api.heartbeat(uid, 2, "old"),
        api.heartbeat(uid, 3, "new"),
    ]

    after = api.status(uid)
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(409, "stale_attempt")}
    assert after["attempts"][0].pop("refused_writes") == 3
    assert before["attempts"][0].pop("refused_writes") == 0
    assert after == before
    assert len(api.files()) == 1  # the input
    assert api.succeed(uid, 2, "new").json() == {"state": "finished"}


def test_an_output_that_becomes_stale_while_it_streams_is_refused_and_removed(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    sent_half = threading.Event()
    go_on = threading.Event()
    answers: list[httpx.Response] = []

    def slowly() -> object:
        yield bytes(2_000_000)
        sent_half.set()
        go_on.wait(60)
        yield bytes(10)

    def upload() -> None:
        path = routes.OUTPUT.format(uid=uid, attempt=1)
        answers.append(
            httpx.put(api.url + path, params={"consumer": "c1"}, content=slowly(), headers=api.http.headers, timeout=30)  # type: ignore[arg-type]
        )

    uploading = threading.Thread(target=upload)
    uploading.start()
    sent_half.wait(60)
    eventually(lambda: any(name.startswith("tmp/") for name in api.files()))
    api.lapse(uid)
    go_on.set()
    uploading.join(60)

    assert answers[0].status_code == 409
    assert [name for name in api.files() if not name.startswith("inputs/")] == []
    assert api.status(uid)["attempts"][0]["refused_writes"] == 1


def test_success_needs_the_output_that_was_uploaded(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    other = {"sha256": hashlib.sha256(b"other").hexdigest(), "size": 5}

    assert api.finish(uid, Outcome.SUCCEEDED, output=other).status_code == 422
    api.put_output(uid)
    assert api.finish(uid, Outcome.SUCCEEDED, output=other).status_code == 422
    assert api.finish(uid, Outcome.SUCCEEDED).status_code == 422
    assert api.status(uid)["state"] == "running"


def test_a_second_upload_of_the_same_attempt_replaces_the_first(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    api.put_output(uid, body=make_zip({"first": b"1"}))
    second = make_zip({"second": b"2"})

    api.succeed(uid, body=second)

    assert api.poll(uid).content == second
    assert len(api.files()) == 1


def test_an_output_above_the_limit_is_413(make_sqlite_api: MakeApi) -> None:
    api = make_sqlite_api(max_output_bytes=1000)
    uid = api.new_task()
    api.claim(uid)

    assert api.put_output(uid, body=os.urandom(1001)).status_code == 413
    assert api.put_output(uid, body=os.urandom(1000)).status_code == 200


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.MODEL_FAILED, "failed"),
        (Outcome.PLATFORM_FAILED, "pending"),
        (Outcome.HANDED_BACK, "pending"),
        (Outcome.CANCELLED, "pending"),
    ],
)
def test_the_same_report_again_gets_the_same_answer(api: Api, outcome: Outcome, state: str) -> None:
    uid = api.new_task()
    api.claim(uid)

    answers = [api.finish(uid, outcome, reason="Why.") for _ in range(2)]
    after = api.status(uid)
    different = Outcome.HANDED_BACK if outcome is not Outcome.HANDED_BACK else Outcome.MODEL_FAILED

    assert [answer.json() for answer in answers] == [{"state": state}] * 2
    assert (after["state"], len(after["attempts"])) == (state, 1)
    assert api.finish(uid, different).status_code == 409
    api.claim(uid, "c2")
    assert api.finish(uid, outcome, reason="Why.").json() == {"state": state}


def test_success_reported_twice_is_one_success(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    ref = api.put_output(uid).json()

    answers = [api.finish(uid, Outcome.SUCCEEDED, output=ref).json() for _ in range(2)]

    assert answers == [{"state": "finished"}] * 2
    assert api.poll(uid).status_code == 200


def test_platform_failures_are_retried_until_the_attempts_are_used_up(make_api: MakeApi) -> None:
    api = make_api(max_attempts=2)
    uid = api.new_task()

    states = []
    for attempt in (1, 2):
        api.claim(uid)
        states.append(api.finish(uid, Outcome.PLATFORM_FAILED, attempt, reason=f"Disk {attempt} full.").json()["state"])

    assert states == ["pending", "failed"]
    assert api.poll(uid).json()["detail"] == "Disk 2 full."
    assert api.finish(uid, Outcome.PLATFORM_FAILED, 2, reason="Disk 2 full.").json() == {"state": "failed"}


def test_attempts_that_were_handed_back_are_not_counted(make_api: MakeApi) -> None:
    api = make_api(max_attempts=1)
    uid = api.new_task()
    for attempt in (1, 2, 3):
        api.claim(uid)
        assert api.finish(uid, Outcome.HANDED_BACK, attempt).json() == {"state": "pending"}

    status = api.status(uid)
    api.claim(uid)

    assert (status["attempt"], status["max_attempts"]) == (3, 4)
    assert api.finish(uid, Outcome.PLATFORM_FAILED, 4, reason="Gone.").json() == {"state": "failed"}


def test_only_attempts_that_nobody_waits_for_are_stale(api: Api) -> None:
    running, pending = api.new_task(), api.new_task()
    claim = api.claim(running, "c1").json()
    presence = ConsumerPresence(host="h", has_gpu=False, runner="docker").model_dump()
    api.http.put(routes.CONSUMER.format(consumer="c1"), json=presence).raise_for_status()
    api.wiring.services.presence._began -= 100  # not young any more
    pending_id = claim["task_id"] + 1
    wanted = [
        AttemptRef(task_id=claim["task_id"], attempt=1, consumer="c1"),
        AttemptRef(task_id=pending_id, attempt=1, consumer="c1"),
    ]
    unwanted = [
        AttemptRef(task_id=claim["task_id"], attempt=1, consumer="c2"),
        AttemptRef(task_id=claim["task_id"], attempt=2, consumer="c1"),
        AttemptRef(task_id=pending_id, attempt=1, consumer="dead"),
        AttemptRef(task_id=pending_id, attempt=2, consumer="c1"),
        AttemptRef(task_id=10**6, attempt=1, consumer="c1"),
        AttemptRef(task_id=10**30, attempt=1, consumer="c1"),
    ]

    answer = api.http.post(routes.STALE_ATTEMPTS, json=[one.model_dump() for one in [*wanted, *unwanted]])

    assert [AttemptRef.model_validate(one) for one in answer.json()] == unwanted
    assert api.http.post(routes.STALE_ATTEMPTS, json=[]).json() == []
    assert api.status(pending)["state"] == "pending"


def test_a_long_log_keeps_its_end(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)

    api.finish(uid, Outcome.MODEL_FAILED, log_tail="x" * 100_000 + "the end")

    log = api.http.get(routes.TASK_LOGS.format(uid=uid)).text
    assert len(log) == 64 * 1024
    assert log.endswith("the end")


def test_long_polls_give_each_task_to_one_consumer_at_once(api: Api) -> None:
    api.register()
    offers: list[tuple[str, float]] = []

    def wait_for_one(number: int) -> None:
        query: dict[str, str | int] = {"consumer": f"c{number}", "has_gpu": "false", "wait": 20}
        answer = httpx.get(api.url + routes.QUEUE_NEXT, params=query, headers=api.http.headers, timeout=30)
        offers.append((answer.json()["uid"], time.monotonic()))

    waiting = [threading.Thread(target=wait_for_one, args=[number]) for number in range(3)]
    for thread in waiting:
        thread.start()
    eventually(lambda: len(api.wiring.wakeups._idle) == 3)

    uids = {api.new_task() for _ in range(3)}
    posted = time.monotonic()
    for thread in waiting:
        thread.join(60)

    assert {uid for uid, _ in offers} == uids
    assert max(when for _, when in offers) - posted < 0.9


def test_the_long_poll_answers_204_when_there_is_nothing(sqlite_api: Api) -> None:
    sqlite_api.register("gpu-model", use_gpu="True")
    sqlite_api.new_task("gpu-model")

    def ask(**query: str | bool) -> int:
        params: dict[str, Any] = {"consumer": "c", "wait": 0.1, **query}
        return sqlite_api.http.get(routes.QUEUE_NEXT, params=params).status_code

    assert ask(has_gpu=False) == 204
    assert ask(has_gpu=True, takes_cpu=False) == 200
    assert ask(has_gpu=True, consumer="other") == 204  # offered to c a moment ago
    assert ask(has_gpu=True) == 200


def test_a_gpu_consumer_takes_gpu_tasks_first(sqlite_api: Api) -> None:
    sqlite_api.register("gpu-model", use_gpu="True")
    cpu, gpu = sqlite_api.new_task(), sqlite_api.new_task("gpu-model")

    def take() -> str:
        offer = sqlite_api.http.get(routes.QUEUE_NEXT, params={"consumer": "c", "has_gpu": True}).json()
        sqlite_api.claim(offer["uid"], "c", has_gpu=True)
        uid: str = offer["uid"]
        return uid

    assert [take(), take()] == [gpu, cpu]


def test_peeking_names_different_tasks_to_different_consumers_and_reserves_none(api: Api) -> None:
    first, second = api.new_task(), api.new_task()

    def peek(consumer: str) -> httpx.Response:
        return api.http.get(routes.QUEUE_PEEK, params={"consumer": consumer, "has_gpu": False})

    offers = [peek("a").json(), peek("a").json(), peek("b").json()]

    assert [(offer["uid"], offer["attempt"]) for offer in offers] == [(first, 1), (first, 1), (second, 1)]
    assert peek("c").status_code == 204
    assert api.claim(first, "c").status_code == 200


def test_the_platform_tells_its_id_and_lease(api: Api) -> None:
    info = api.http.get(routes.PLATFORM).json()

    assert info["lease_seconds"] == 30
    assert len(info["installation"]) == 16

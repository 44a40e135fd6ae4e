"""Silent consumers, and restarts of private_api itself."""

import time
from pathlib import Path

import pytest

from contracts import routes
from contracts.tasks import Outcome
from tests.support.private_api import Api, MakeApi, make_zip, running, settings
from tests.support.waiting import eventually


def test_the_task_of_a_silent_consumer_becomes_pending_by_itself(make_api: MakeApi) -> None:
    api = make_api(lease_seconds=0.3)
    uid = api.new_task()
    api.claim(uid)

    eventually(lambda: api.status(uid)["state"] == "pending")

    attempt = api.status(uid)["attempts"][0]
    assert attempt["outcome"] == "lease_lapsed"
    assert "c1" in attempt["reason"]
    assert api.claim(uid, "c2").json()["attempt"] == 2


def test_a_task_lost_too_often_fails_and_says_so(make_api: MakeApi) -> None:
    api = make_api(max_attempts=2)
    uid = api.new_task()
    for consumer in ("c1", "c2"):
        api.claim(uid, consumer)
        api.lapse(uid)

    answer = api.poll(uid)

    assert answer.status_code == 552
    assert "lost 2 times" in answer.json()["detail"]
    assert api.files() == []


def test_an_uncommitted_output_goes_with_its_lapsed_attempt(api: Api) -> None:
    uid = api.new_task()
    api.claim(uid)
    api.put_output(uid)

    api.lapse(uid)

    assert [name for name in api.files() if name.startswith("outputs/")] == []


def test_leases_are_judged_by_the_databases_clock_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = api.new_task()
    api.claim(uid)
    right = time.time

    monkeypatch.setattr(time, "time", lambda: right() + 1_000_000)
    api.look_at_leases()
    ahead = api.status(uid)["state"]
    monkeypatch.setattr(time, "time", lambda: right() - 1_000_000)
    api.lapse(uid)

    assert ahead == "running"
    assert api.status(uid)["state"] == "pending"


def test_a_restart_keeps_everything_and_gives_running_attempts_a_fresh_lease(database_url: str, tmp_path: Path) -> None:
    given = settings(database_url, tmp_path / "data")
    content, output = make_zip({"model": b"m"}), make_zip({"out": b"o"})
    with running(given) as api:
        api.register("m", content=content)
        running_uid, pending, finished = api.new_task(), api.new_task(), api.new_task()
        api.claim(finished)
        api.succeed(finished, body=output)
        api.claim(running_uid)
        uploaded = api.put_output(running_uid).json()
        installation = api.http.get(routes.PLATFORM).json()["installation"]
        api.execute("UPDATE tasks SET lease_until = 1 WHERE lease_until IS NOT NULL")

    with running(given) as api:
        assert api.http.get(routes.PLATFORM).json()["installation"] == installation
        assert api.http.get(routes.MODELS).json()[0]["content"]["size"] == len(content)
        assert api.poll(finished).content == output
        assert api.poll(pending).status_code == 551
        assert api.heartbeat(running_uid).json()["cancel"] is False
        assert api.finish(running_uid, Outcome.SUCCEEDED, output=uploaded).json() == {"state": "finished"}
        assert [attempt["outcome"] for attempt in api.status(running_uid)["attempts"]] == ["succeeded"]


def test_a_start_removes_files_that_no_row_names_and_keeps_the_others(database_url: str, tmp_path: Path) -> None:
    given = settings(database_url, tmp_path / "data")
    orphans = ["inputs/orphan", "models/orphan", "outputs/1-1-orphan", "outputs/nonsense", "tmp/half"]
    with running(given) as api:
        api.register("m", content=make_zip())
        pending, uploading, finished = api.new_task(), api.new_task(), api.new_task()
        for uid in (uploading, finished):
            api.claim(uid)
        api.put_output(uploading)
        api.succeed(finished)
        named = api.files()
    for orphan in orphans:
        (tmp_path / "data" / orphan).write_bytes(b"left")

    with running(given) as api:
        eventually(lambda: api.files() == named)
        assert len(named) == 5
        assert [api.poll(uid).status_code for uid in (pending, finished)] == [551, 200]

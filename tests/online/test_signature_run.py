"""Every row of the microservice gateway's wire, with curl, against a real gateway and real workers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.curl import CurlAnswer, curl, post_json
from tests.support.golden import assert_golden
from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

MODULE = """
from online_worker.endpoint import Endpoint, InvalidInput


class AskedWorker(Endpoint):
    version = "2.1"

    def predict(self, inputs):
        match inputs.get("ask"):
            case "sum":
                return {"sum": sum(inputs["vector"])}
            case "what arrived":
                return {"arrived": inputs}
            case "a list":
                return [1, 2]
            case "its own version":
                return {"worker_ver": "mine", "ver": "not yours", "time": "nor this"}
            case "note":
                self.context.notify("log", inputs["note"])
                return {}
            case "a failure":
                raise RuntimeError("the model is ill")
            case other:
                raise InvalidInput(f"Ask for a sum, not for {other!r}.")
"""


def served(folder: Path, **settings: object) -> OnlinePlatform:
    entry = {"NR_WORKERS": 1, "HOST": "127.0.0.1", "DESCRIPTION": "Answers what it is asked"}
    platform = OnlinePlatform(
        folder,
        {"asked": entry, "other": {**entry, "SERVER_CLASS": "asked"}},
        whole={"SERVER_NAME": "tests", "DEFAULT_SERVER": "asked", "NO_STARTUP_WAIT": True},
        **settings,
    )
    platform.write_module("asked", MODULE)
    return platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    with served(tmp_path_factory.mktemp("signature_run")) as running:
        yield running


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[OnlinePlatform]:
    """One to stop and to change."""
    with served(tmp_path) as running:
        yield running


def asked(platform: OnlinePlatform, **inputs: Any) -> CurlAnswer:
    return post_json(f"{platform.url}/run", {"SIGNATURE": "asked", **inputs})


# POST /run


def test_a_call_is_answered_with_the_workers_object_and_time_and_versions(platform: OnlinePlatform) -> None:
    answer = asked(platform, ask="sum", vector=[0.5, 0.25])

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["model-generation"] == "1"
    assert_golden("signature_run/run", answer)


def test_the_endpoint_gets_what_was_sent_without_the_signature(platform: OnlinePlatform) -> None:
    answer = asked(platform, ask="what arrived", nested={"a": [1, None, "ü"]})

    assert answer.json["arrived"] == {"ask": "what arrived", "nested": {"a": [1, None, "ü"]}}


def test_the_workers_own_version_stays_and_time_and_version_are_the_gateways(platform: OnlinePlatform) -> None:
    answer = asked(platform, ask="its own version").json

    assert answer["worker_ver"] == "mine"
    assert answer["ver"] != "not yours"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", answer["time"])


def test_an_answer_that_is_no_object_stands_under_data(platform: OnlinePlatform) -> None:
    assert asked(platform, ask="a list").json["data"] == [1, 2]


@pytest.mark.parametrize("body", ["{}", '{"INPUT_VALUE": 1}', '{"SIGNATURE": 7}'])
def test_a_call_without_a_signature_is_told_the_known_ones(platform: OnlinePlatform, body: str) -> None:
    answer = curl(f"{platform.url}/run", "--data", body)

    assert answer.status == 422
    assert_golden("signature_run/run_without_signature", answer)


def test_a_call_with_an_unknown_signature_is_told_the_known_ones(platform: OnlinePlatform) -> None:
    answer = post_json(f"{platform.url}/run", {"SIGNATURE": "nobody"})

    assert answer.status == 404
    assert_golden("signature_run/run_unknown_signature", answer)


def test_an_input_that_the_endpoint_refuses_is_told_why(platform: OnlinePlatform) -> None:
    answer = asked(platform, ask="the weather")

    assert answer.status == 422
    assert_golden("signature_run/run_invalid_input", answer)


def test_an_endpoint_that_fails_is_told_in_a_sentence(platform: OnlinePlatform) -> None:
    answer = asked(platform, ask="a failure")

    assert answer.status == 500
    assert "the model is ill" in answer.json["ERROR"]
    assert "Traceback" not in answer.body


@pytest.mark.parametrize("depth", [300, 900, 1100, 100_000])
def test_a_document_nested_however_deeply_is_answered_and_hurts_nobody(platform: OnlinePlatform, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    document = f'{{"SIGNATURE": "asked", "ask": "what arrived", "x": {nested}}}'

    answer = platform.http.post("/run", content=document)

    assert answer.status_code in {200, 422, 500}, answer.text
    assert answer.status_code == 200 or "ERROR" in answer.json()
    assert asked(platform, ask="sum", vector=[1]).status == 200


def test_a_text_that_is_no_utf_8_is_refused(platform: OnlinePlatform) -> None:
    answer = platform.http.post("/run", content=b'{"SIGNATURE": "asked", "ask": "\xff"}')

    assert answer.status_code == 422
    assert "ERROR" in answer.json()


@pytest.mark.parametrize("body", ["[1]", "{", '"text"', '[{"SIGNATURE": "asked"}]'])
def test_a_body_that_is_no_object_is_refused(platform: OnlinePlatform, body: str) -> None:
    answer = curl(f"{platform.url}/run", "--data", body)

    assert answer.status == 422
    assert "JSON object" in answer.json["ERROR"]


def test_a_call_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, MAX_CALL_BYTES=1000) as platform:
        answer = asked(platform, ask="sum", vector=[1] * 1000)

        assert answer.status == 413
        assert "1000 bytes" in answer.json["ERROR"]


def test_a_form_and_a_query_are_calls_too(platform: OnlinePlatform) -> None:
    form = curl(f"{platform.url}/run", "--data", "SIGNATURE=asked&ask=what+arrived")
    query = curl(f"{platform.url}/run?SIGNATURE=asked&ask=what+arrived")

    assert form.json["arrived"] == query.json["arrived"] == {"ask": "what arrived"}


# Looking


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_servers_are_listed(platform: OnlinePlatform, method: str) -> None:
    answer = curl(f"{platform.url}/list_servers", "--request", method)

    assert answer.status == 200
    assert_golden("signature_run/list_servers", answer)


@pytest.mark.parametrize(
    "call",
    [
        ("/system_status", "--request", "POST"),
        ("/system_status", "--request", "GET"),
        ("/run", "--request", "POST"),
        ("/run", "--data", '{"SIGNATURE": "SYSTEM_STATUS"}'),
        ("/run", "--data", '{"SYSTEM_STATUS": true}'),
    ],
)
def test_the_systems_status_is_told_in_gb(platform: OnlinePlatform, call: tuple[str, ...]) -> None:
    path, *options = call

    answer = curl(platform.url + path, *options)

    assert answer.status == 200
    status = answer.json["SYSTEM_STATUS"]
    assert status.pop("info").startswith("Memory Size is in GB")
    assert 0 < status["mem_servers"]["asked"] < status["mem_used"] < status["mem_total"]
    assert status["mem_used"] == pytest.approx(status["mem_gateway"] + sum(status["mem_servers"].values()), abs=0.03)
    assert_golden("signature_run/system_status", answer, *status, *status["mem_servers"])


def test_notifications_are_those_since_the_last_call(platform: OnlinePlatform) -> None:
    def take(name: str) -> CurlAnswer:
        return post_json(f"{platform.url}/notifications", {"SIGNATURE": name})

    asked(platform, ask="note", note="the first")
    asked(platform, ask="note", note="the second")
    seen: list[dict[str, Any]] = []
    eventually(lambda: seen.extend(take("asked").json["GENERAL"]) or len(seen) >= 2)

    assert [(one["NOTIFICATION_TYPE"], one["MODULE"], one["NOTIF"]) for one in seen] == [
        ("log", "asked", "the first"),
        ("log", "asked", "the second"),
    ]
    assert_golden("signature_run/notifications_none_left", take("asked"))
    assert take("nobody").status == 404
    assert post_json(f"{platform.url}/notifications", {}).status == 422


# Changing


def test_a_server_is_killed_and_started(own_platform: OnlinePlatform) -> None:
    url = own_platform.url
    running = post_json(f"{url}/start_server", {"SIGNATURE": "other"})

    killed = post_json(f"{url}/kill_server", {"SIGNATURE": "other"})
    refused = post_json(f"{url}/run", {"SIGNATURE": "other", "ask": "sum", "vector": [1]})
    listed = curl(f"{url}/list_servers").json
    started = post_json(f"{url}/start_server", {"SIGNATURE": "other"})

    assert running.status == 409
    assert_golden("signature_run/start_server_that_runs", running)
    assert_golden("signature_run/kill_server", killed)
    assert refused.status in {404, 503}
    assert listed == {"AVAIL_SERVERS": ["asked"]}
    assert_golden("signature_run/start_server", started)
    eventually(lambda: post_json(f"{url}/run", {"SIGNATURE": "other", "ask": "sum", "vector": [1]}).status == 200)
    assert asked(own_platform, ask="sum", vector=[1]).status == 200


def test_a_started_server_runs_the_code_of_now_and_one_that_cannot_says_why(own_platform: OnlinePlatform) -> None:
    url = own_platform.url
    post_json(f"{url}/kill_server", {"SIGNATURE": "asked"})
    own_platform.write_module("asked", MODULE.replace("sum(inputs", "10 * sum(inputs"))
    started = post_json(f"{url}/start_server", {"SIGNATURE": "asked"})
    changed = asked(own_platform, ask="sum", vector=[1])

    post_json(f"{url}/kill_server", {"SIGNATURE": "asked"})
    own_platform.write_module("asked", "import nothing_of_this_name")
    broken = post_json(f"{url}/start_server", {"SIGNATURE": "asked"})

    assert started.status == 200
    assert changed.json["sum"] == 10
    assert broken.status == 503
    assert "nothing_of_this_name" in broken.json["ERROR"]


@pytest.mark.parametrize("route", ["start_server", "kill_server", "update_workers"])
def test_an_unknown_server_cannot_be_changed(platform: OnlinePlatform, route: str) -> None:
    answer = post_json(f"{platform.url}/{route}", {"SIGNATURE": "nobody", "NR_WORKERS": 1})

    assert answer.status == 404
    assert answer.json["AVAIL_SERVERS"] == ["asked", "other"]


@pytest.mark.parametrize("route", ["start_server", "kill_server", "update_workers", "shutdown"])
def test_nothing_changes_by_get(platform: OnlinePlatform, route: str) -> None:
    assert curl(f"{platform.url}/{route}?SIGNATURE=asked&NR_WORKERS=0").status == 405


def test_the_number_of_workers_follows(own_platform: OnlinePlatform) -> None:
    answer = post_json(f"{own_platform.url}/update_workers", {"SIGNATURE": "asked", "NR_WORKERS": 3})

    assert_golden("signature_run/update_workers", answer)
    eventually(lambda: len(own_platform.workers("asked")) == 3)
    curl(f"{own_platform.url}/update_workers", "--data", "SIGNATURE=asked&NR_WORKERS=1")
    eventually(lambda: len(own_platform.workers("asked")) == 1)


@pytest.mark.parametrize("number", [None, "many", -1, 1.5, True])
def test_a_number_of_workers_that_is_none_is_refused(platform: OnlinePlatform, number: object) -> None:
    answer = post_json(f"{platform.url}/update_workers", {"SIGNATURE": "asked", "NR_WORKERS": number})

    assert answer.status == 422
    assert "NR_WORKERS" in answer.json["ERROR"]


def test_shutdown_takes_its_command_and_nothing_else(own_platform: OnlinePlatform) -> None:
    url = f"{own_platform.url}/shutdown"
    workers = own_platform.workers()
    refused = [post_json(url, document) for document in ({}, {"SIGNATURE": "asked"}, {"SIGNATURE": "STOP"})]

    told = post_json(url, {"SIGNATURE": "SAFE_KILL_SERVER_CMD"})

    assert [answer.status for answer in refused] == [422, 422, 422]
    assert_golden("signature_run/shutdown", told)
    assert own_platform.process is not None
    assert own_platform.process.wait(60) == 0
    eventually(lambda: not any(worker.is_running() for worker in workers))


@pytest.mark.parametrize("route", ["start_server", "kill_server", "update_workers", "shutdown"])
def test_beyond_loopback_changes_take_the_admin_token(route: str, beyond_loopback: OnlinePlatform) -> None:
    url, document = f"{beyond_loopback.url}/{route}", {"SIGNATURE": "nobody", "NR_WORKERS": 1}

    without = post_json(url, document)
    with_token = post_json(url, document, "--header", f"Authorization: Bearer {beyond_loopback.admin_token}")

    assert without.status == 401
    assert "admin token" in without.json["ERROR"]
    assert with_token.status in {404, 422}


@pytest.fixture(scope="module")
def beyond_loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    with served(tmp_path_factory.mktemp("beyond"), HOST="0.0.0.0") as running:
        yield running


# Support processes


def test_a_support_process_posts_its_figures(own_platform: OnlinePlatform) -> None:
    figures = {"SIGNATURE": "disk_watch", "total_disk": 12.5, "msg": "fine"}

    answer = post_json(f"{own_platform.url}/support_update_status", figures)

    assert_golden("signature_run/support_update_status", answer)
    status = curl(f"{own_platform.url}/system_status").json["SYSTEM_STATUS"]
    assert status["system_support_services"] == {"disk_watch": {"total_disk": 12.5, "msg": "fine"}}

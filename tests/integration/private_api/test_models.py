"""Registering, listing and deleting models."""

from typing import Any

import pytest

from contracts import routes
from contracts.tasks import Outcome
from tests.support.private_api import Api, MakeApi, make_zip


def test_a_registration_is_answered_and_listed_in_full(api: Api) -> None:
    answer = api.register(
        "segment-ct",
        description="Größe",
        use_gpu="True",
        input_mountpoint="/data/in",
        memory_bytes=2**30,
        timeout_seconds=60,
    )

    assert answer.status_code == 200
    view = answer.json()
    assert view == api.http.get(routes.MODEL.format(human_readable_id="segment-ct")).json()
    assert [view] == api.http.get(routes.MODELS).json()
    assert (view["use_gpu"], view["input_mountpoint"], view["output_mountpoint"]) == (True, "/data/in", "/output")
    assert (view["description"], view["model_available"], view["content"]) == ("Größe", False, None)
    assert view["limits"]["memory_bytes"] == 2**30


@pytest.mark.parametrize(("sent", "meant"), [("True", True), ("False", False), ("true", True), ("0", False)])
def test_use_gpu_is_read_as_clients_send_it(sqlite_api: Api, sent: str, meant: bool) -> None:
    assert sqlite_api.register(use_gpu=sent).json()["use_gpu"] is meant


def test_an_id_is_given_once(api: Api) -> None:
    api.register("m", content=make_zip())

    again = api.register("m", content=make_zip())

    assert (again.status_code, again.json()["code"]) == (409, "duplicate_model")
    assert len(api.files()) == 1


def test_model_content_is_stored_checked_and_served(api: Api) -> None:
    content = make_zip({"weights.bin": b"w" * 1000})
    view = api.register("with-content", content=content, model_available="True").json()

    served = api.http.get(routes.MODEL_CONTENT.format(uid=view["uid"]))

    assert view["model_available"] is True
    assert served.content == content
    assert api.http.get(routes.MODEL_CONTENT_HASHES).json() == [view["content"]["sha256"]]
    assert api.register("broken", content=b"no zip").status_code == 415
    assert len(api.files()) == 1


@pytest.mark.parametrize(("available", "content"), [("True", None), ("False", make_zip())])
def test_model_available_must_agree_with_the_upload(sqlite_api: Api, available: str, content: bytes | None) -> None:
    answer = sqlite_api.register(model_available=available, content=content)

    assert answer.status_code == 422
    assert "model_available" in answer.json()["detail"]
    assert sqlite_api.files() == []
    assert sqlite_api.http.get(routes.MODELS).json() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"human_readable_id": ""},
        {"human_readable_id": "../x"},
        {"container_tag": ""},
        {"container_tag": "image\x00:1"},
        {"container_tag": "--privileged image:1"},
        {"input_mountpoint": "relative"},
        {"input_mountpoint": "/a/../b"},
        {"input_mountpoint": "/output/in"},
        {"output_mountpoint": "/input"},
        {"output_mountpoint": "/proc"},
        {"input_mountpoint": "/dev/shm"},
        {"memory_bytes": "1"},
        {"timeout_seconds": "nan"},
        {"timeout_seconds": "inf"},
        {"cpus": "-1"},
        {"cpus": "0.001"},
        {"network": "host"},
        {"use_gpu": "perhaps"},
    ],
)
def test_a_wrong_registration_is_422(sqlite_api: Api, wrong: dict[str, str]) -> None:
    query = {"human_readable_id": "m", "container_tag": "image:1", **wrong}

    answer = sqlite_api.http.post(routes.MODELS, params=query)

    assert answer.status_code == 422, answer.text
    assert sqlite_api.http.get(routes.MODELS).json() == []


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"memory_bytes": 2**50}, "memory_bytes"),
        ({"timeout_seconds": 10**9}, "timeout_seconds"),
        ({"cpus": 1000}, "cpus"),
        ({"network": "bridge"}, "network"),
        ({"capabilities": ["SYS_ADMIN"]}, "SYS_ADMIN"),
    ],
)
def test_a_limit_above_the_ceiling_is_refused_by_name(sqlite_api: Api, asked: dict[str, Any], named: str) -> None:
    answer = sqlite_api.register(**asked)

    assert (answer.status_code, answer.json()["code"]) == (422, "limit_above_ceiling")
    assert named in answer.json()["detail"]


def test_the_claim_carries_the_limits_that_were_asked_for_or_the_defaults(make_sqlite_api: MakeApi) -> None:
    api = make_sqlite_api(
        default_pids=77, allow_model_network=True, allowed_capabilities="NET_RAW, SYS_NICE", default_cpus=0.5
    )
    api.register("m", memory_bytes=2**29, network="bridge", capabilities=["SYS_NICE"])

    limits = api.claim(api.new_task()).json()["model"]["limits"]

    assert (limits["memory_bytes"], limits["pids"], limits["cpus"]) == (2**29, 77, 0.5)
    assert (limits["network"], limits["capabilities"]) == ("bridge", ["SYS_NICE"])


def test_a_model_with_live_tasks_cannot_be_deleted(api: Api) -> None:
    api.register("m", content=make_zip())
    uid = api.new_task()
    api.claim(uid)
    model = routes.MODEL.format(human_readable_id="m")
    assert api.http.delete(model).status_code == 409

    api.finish(uid, Outcome.MODEL_FAILED, reason="Broken.")

    assert api.http.delete(model).status_code == 200
    assert api.http.get(model).status_code == 404
    assert api.http.delete(model).status_code == 404
    assert api.status(uid)["model"] == "m"
    assert api.files() == []
    assert api.http.get(routes.MODEL_CONTENT_HASHES).json() == []
    assert api.register("m").status_code == 200

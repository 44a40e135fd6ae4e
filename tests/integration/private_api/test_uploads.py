"""What is refused at the door, and what an upload leaves behind when it does not end well."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from contracts import routes
from tests.support.platform import Service
from tests.support.ports import free_port
from tests.support.private_api import TOKEN, Api, MakeApi, make_zip
from tests.support.waiting import eventually

QUERY = {"model_human_readable_id": "m"}


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body of (Content-Disposition parameters, bytes)."""
    body = b"".join(
        b"--frame\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + b"--frame--\r\n"


def post_form(api: Api, body: bytes) -> httpx.Response:
    return api.http.post(
        routes.TASKS, params=QUERY, content=body, headers={"Content-Type": "multipart/form-data; boundary=frame"}
    )


FILE = 'name="zip_file"; filename="i.zip"'


def test_the_file_field_is_found_among_others(sqlite_api: Api) -> None:
    sqlite_api.register()
    sent = make_zip()

    uid = post_form(sqlite_api, form(('name="a"', b"1"), (FILE, sent), ('name="b"; filename="x"', b"2"))).json()

    assert sqlite_api.http.get(routes.TASK_INPUT.format(uid=uid)).content == sent


def test_what_is_no_form_with_a_zip_is_refused_in_a_sentence(sqlite_api: Api) -> None:
    api = sqlite_api
    api.register()
    raw = api.http.post(routes.TASKS, params=QUERY, content=make_zip(), headers={"Content-Type": "application/zip"})
    nothing = api.http.post(routes.TASKS, params=QUERY)
    bodies = {
        "no such field": form(('name="file"; filename="i.zip"', make_zip())),
        "a text field": form(('name="zip_file"', make_zip())),
        "no file chosen": form(('name="zip_file"; filename=""', b"")),
        "two files": form((FILE, make_zip()), (FILE, make_zip())),
        "no end": form((FILE, make_zip()))[:-12],
        "no form": b"hello",
        "too much beside it": form(('name="other"', b"x" * (2**20 + 1)), (FILE, make_zip())),
    }

    answers = {name: post_form(api, body) for name, body in bodies.items()}

    assert [raw.status_code, nothing.status_code] == [422, 422]
    assert {name: answer.status_code for name, answer in answers.items()} == {
        **dict.fromkeys(bodies, 422),
        "too much beside it": 413,
    }
    assert all(
        "zip_file" in a.json()["detail"] or "form" in a.json()["detail"] for a in [raw, nothing, *answers.values()]
    )
    assert api.files() == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"not a zip", 415, "not_an_archive"),
        (b"", 415, "not_an_archive"),
        (make_zip({"../evil": b"x"}), 422, "hostile_archive"),
        (make_zip({"bomb": bytes(30 * 2**20)}), 422, "hostile_archive"),
    ],
)
def test_a_bad_zip_is_refused_and_leaves_nothing(sqlite_api: Api, content: bytes, status: int, code: str) -> None:
    sqlite_api.register()

    answer = sqlite_api.post(content)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert sqlite_api.files() == []


def test_an_empty_zip_is_a_task(sqlite_api: Api) -> None:
    sqlite_api.register()

    assert sqlite_api.post(make_zip({})).status_code == 200


def test_an_unknown_model_is_refused_before_the_body_is_read(sqlite_api: Api) -> None:
    address = urlsplit(sqlite_api.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(
            b"POST /api/tasks/?model_human_readable_id=nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
            b"Content-Type: multipart/form-data; boundary=frame\r\n\r\n"
        )

        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_a_model_posted_to_tasks_is_pointed_to_its_place(sqlite_api: Api) -> None:
    answer = sqlite_api.http.post(routes.TASKS, params={"container_tag": "x", "human_readable_id": "m"})

    assert answer.status_code == 422
    assert routes.MODELS in answer.json()["detail"]
    assert sqlite_api.http.post(routes.TASKS).status_code == 422


def test_both_spellings_of_the_path_take_a_post(sqlite_api: Api) -> None:
    sqlite_api.register()

    answer = sqlite_api.http.post("/api/tasks", params=QUERY, files={"zip_file": ("i.zip", make_zip())})

    assert answer.status_code == 200
    assert sqlite_api.http.get("/api/models").json() == sqlite_api.http.get("/api/models/").json()


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_above_the_limit_is_413(make_sqlite_api: MakeApi, declared: bool) -> None:
    api = make_sqlite_api(max_upload_bytes=100_000)
    api.register()
    body = form((FILE, os.urandom(3_000_000)))
    headers = {"Content-Type": "multipart/form-data; boundary=frame"}

    answer = api.http.post(
        routes.TASKS,
        params=QUERY,
        headers=headers,
        content=body if declared else iter([body[:2_000_000], body[2_000_000:]]),
    )

    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert api.files() == []


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_that_the_disk_has_no_room_for_is_507(make_sqlite_api: MakeApi, declared: bool) -> None:
    api = make_sqlite_api(min_free_bytes=2**60)
    api.register()
    body = form((FILE, make_zip()))

    answer = api.http.post(
        routes.TASKS,
        params=QUERY,
        headers={"Content-Type": "multipart/form-data; boundary=frame"},
        content=body if declared else iter([body]),
    )

    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert "files" in api.http.get(routes.HEALTH_READY).json()["dependencies"]
    assert api.files() == []


def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(sqlite_api: Api) -> None:
    sqlite_api.register()
    address = urlsplit(sqlite_api.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(
            b"POST /api/tasks/?model_human_readable_id=m HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
            b"Content-Type: multipart/form-data; boundary=frame\r\n\r\n"
        )
        connection.sendall(form((FILE, bytes(4_000_000)))[:-20])
        eventually(lambda: any(name.startswith("tmp/") for name in sqlite_api.files()))

    eventually(lambda: sqlite_api.files() == [])
    assert sqlite_api.http.get(routes.MODEL.format(human_readable_id="m")).status_code == 200


def test_every_route_but_health_asks_for_the_token(sqlite_api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        with httpx.Client(base_url=sqlite_api.url, headers=headers) as stranger:
            for path in (routes.MODELS, routes.PLATFORM, "/api/tasks/x", "/docs", "/openapi.json", "/nowhere"):
                assert stranger.get(path).status_code == 401
            assert stranger.get(routes.HEALTH_LIVE).status_code == 200
            assert stranger.get(routes.HEALTH_READY).json()["dependencies"]["database"] == "ok"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "data").mkdir()
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path}/data/platform.db",
        "DATA_DIR": str(tmp_path / "data"),
        "INTERNAL_TOKEN": TOKEN,
        "MIN_FREE_BYTES": "0",
        "PORT": str(free_port()),
    }


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    """private_api as a process of its own."""
    started = Service("private_api", "private_api", environment, tmp_path / "log")
    yield started
    started.stop()


def client_of(environment: dict[str, str]) -> httpx.Client:
    """A client, once the process answers."""
    url = f"http://127.0.0.1:{environment['PORT']}"
    client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def answers() -> bool:
        try:
            return client.get(routes.HEALTH_READY).is_success
        except httpx.TransportError:
            return False

    eventually(answers, 30)
    return client


def test_a_kill_amid_uploads_leaves_no_half_file_and_loses_no_answered_task(
    service: Service, environment: dict[str, str], tmp_path: Path
) -> None:
    sent = make_zip({"x": os.urandom(300_000)})
    answered: list[str] = []

    def keep_posting(client: httpx.Client) -> None:
        try:
            while True:
                posted = client.post(routes.TASKS, params=QUERY, files={"zip_file": ("i.zip", sent)})
                answered.append(posted.raise_for_status().json())
        except httpx.HTTPError:
            return

    with closing(client_of(environment)) as client:
        client.post(routes.MODELS, params={"container_tag": "i", "human_readable_id": "m"}).raise_for_status()
        posters = [threading.Thread(target=keep_posting, args=[client]) for _ in range(4)]
        for poster in posters:
            poster.start()
        eventually(lambda: len(answered) >= 8, 30)
        service.kill()
        for poster in posters:
            poster.join(30)

    service.restart()

    with closing(client_of(environment)) as client:
        assert {client.get(routes.TASK.format(uid=uid)).status_code for uid in answered} == {551}
        assert all(client.get(routes.TASK_INPUT.format(uid=uid)).content == sent for uid in answered)
        assert list((tmp_path / "data" / "tmp").iterdir()) == []


def test_a_start_that_cannot_be_ends_in_one_clear_line(
    service: Service, environment: dict[str, str], tmp_path: Path
) -> None:
    client_of(environment).close()
    others = {"PORT": "0", "DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}
    mistakes = {
        "owns DATA_DIR": others,
        "cannot listen": {"DATA_DIR": str(tmp_path / "second")},
        "DATABASE_URL": {**others, "DATA_DIR": str(tmp_path / "third"), "DATABASE_URL": "mysql://x/y"},
        "MAX_PIDS": {"MAX_PIDS": "1"},
        "INTERNAL_TOKEN": {"INTERNAL_TOKEN": ""},
    }

    for named, mistake in mistakes.items():
        ended = subprocess.run(
            [sys.executable, "-m", "private_api"],
            env={"PATH": os.environ["PATH"], **environment, **mistake},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        lines = [line for line in ended.stderr.splitlines() if '"level": "info"' not in line]
        assert ended.returncode != 0
        assert len(lines) == 1, lines
        assert named in lines[0]
        assert TOKEN not in lines[0]

"""The shortcut takes plain calls of its one path, and leaves all others to the app."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from contracts.errors import Unavailable
from service_kit.http_app import create_app
from service_kit.shortcut import Shortcut
from tests.support.http_server import serving


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    async def answer(_: Request, name: str) -> Response:
        if name == "away":
            raise Unavailable("Later.")
        return Response(f"short {name}")

    app: FastAPI = create_app("t", "")
    app.add_middleware(Shortcut, template="/things/{name}", answer=answer)

    @app.api_route("/things/{name:path}", methods=["GET", "HEAD", "DELETE"])
    async def long_way(name: str) -> Response:
        return Response(f"long {name}")

    with serving(app) as url, httpx.Client(base_url=url) as opened:
        yield opened


def test_a_plain_get_takes_the_short_way(client: httpx.Client) -> None:
    assert client.get("/things/a-B_9").text == "short a-B_9"


@pytest.mark.parametrize("url", ["/things/a?wait=1", "/things/a%20b", "/things/a/b", "/things/a.b"])
def test_what_needs_validation_takes_the_long_way(client: httpx.Client, url: str) -> None:
    assert client.get(url).text.startswith("long ")


def test_other_methods_take_the_long_way(client: httpx.Client) -> None:
    assert client.delete("/things/a").text == "long a"
    assert client.head("/things/a").status_code == 200


def test_an_error_of_the_platform_is_answered_as_anywhere(client: httpx.Client) -> None:
    answer = client.get("/things/away")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.json() == {"detail": "Later.", "code": "unavailable"}

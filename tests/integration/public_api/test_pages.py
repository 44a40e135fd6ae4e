"""The pages of the service itself: welcome, documentation, health; and which routes exist at all."""

import re

import httpx
import pytest

from tests.integration.public_api.conftest import RelayTo
from tests.support.upstream import Upstream


def test_a_program_gets_a_welcome_and_a_browser_the_documentation(client: httpx.Client) -> None:
    program = client.get("/", headers={"Accept": "application/json"})
    browser = client.get("/", headers={"Accept": "text/html,application/xhtml+xml"})

    assert (program.status_code, list(program.json())) == (200, ["message"])
    assert (browser.status_code, browser.headers["location"]) == (303, "/docs")


def test_the_documentation_needs_no_other_host_and_all_its_assets_answer(client: httpx.Client) -> None:
    page = client.get("/docs")

    assert page.status_code == 200
    assert re.findall(r"https?://[^\s\"'<>]+", page.text) == []
    assets = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert any(asset.endswith(".js") for asset in assets)
    assert any(asset.endswith(".css") for asset in assets)
    for asset in [*assets, "/openapi.json"]:
        answer = client.get(asset)
        assert answer.status_code == 200, asset
        assert answer.content, asset


def test_the_description_names_the_public_routes_and_no_foreign_host(client: httpx.Client) -> None:
    description = client.get("/openapi.json")

    assert "http://" not in description.text
    assert "https://" not in description.text
    assert "/internal" not in description.text
    assert set(description.json()["paths"]) == {
        "/",
        "/health/live",
        "/health/ready",
        "/api/models/",
        "/api/models/{human_readable_id}",
        "/api/tasks/",
        "/api/tasks/{uid}",
        "/api/tasks/{uid}/status",
        "/api/tasks/{uid}/logs",
        "/api/tasks/{uid}/cancel",
    }
    poll = description.json()["paths"]["/api/tasks/{uid}"]["get"]["responses"]
    assert {"200", "551", "552", "553", "554", "503"} <= set(poll)


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "on"])
def test_a_truthy_setting_opens_the_posting_of_models(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ALLOW_PUBLIC_POST_MODEL", value)

    with relay_to(upstream_url) as client:
        posted, deleted = client.post("/api/models/?container_tag=a"), client.delete("/api/models/a")

    assert (posted.status_code, deleted.status_code) == (200, 200)
    assert [seen.method for seen in upstream.seen] == ["POST", "DELETE"]


@pytest.mark.parametrize("value", ["false", "", "0", "no", "off", None])
def test_otherwise_models_can_only_be_read(
    upstream: Upstream, upstream_url: str, relay_to: RelayTo, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("ALLOW_PUBLIC_POST_MODEL", raising=False)
    if value is not None:
        monkeypatch.setenv("ALLOW_PUBLIC_POST_MODEL", value)

    with relay_to(upstream_url) as client:
        refused = [
            client.post("/api/models/?container_tag=a"),
            client.delete("/api/models/a"),
            client.post("/api/models"),
        ]
        listed = client.get("/api/models/")
        described = client.get("/openapi.json").json()["paths"]

    assert [answer.status_code for answer in refused] == [405, 405, 405]
    assert all("detail" in answer.json() for answer in refused)
    assert listed.status_code == 200
    assert list(described["/api/models/"]) == ["get"]
    assert list(described["/api/models/{human_readable_id}"]) == ["get"]
    assert len(upstream.seen) == 1


def test_ready_says_that_private_api_is_there(client: httpx.Client, upstream: Upstream) -> None:
    answer = client.get("/health/ready")

    assert (answer.status_code, answer.json()["dependencies"]) == (200, {"private_api": "ok"})
    assert upstream.last.target == "/health/ready"


def test_ready_names_private_api_when_it_is_the_trouble(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers(503, {"status": "unavailable", "dependencies": {"database": "disk full"}})

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert "disk full" in answer.json()["dependencies"]["private_api"]
    assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("target", ["/nothing", "/api/", "/api/tasks/x/y/z"])
def test_an_unknown_path_is_a_404_with_a_json_body(client: httpx.Client, target: str) -> None:
    answer = client.get(target)

    assert (answer.status_code, set(answer.json())) == (404, {"detail", "code"})

"""Who may change what is served, by where the gateway listens and what a request carries."""

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Forbidden, Unauthorized
from online_gateway.access import Access
from online_gateway.config import OnlineGatewaySettings

TOKEN = "the-administrators-token"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def access(*, on_loopback: bool, **settings: Any) -> Access:
    given = OnlineGatewaySettings(data_dir=Path("x"), worker_token="a-token-of-the-workers", **settings)
    return Access(given, listens_on_loopback=on_loopback)


def scope(peer: str | None = "127.0.0.1", **headers: str) -> dict[str, Any]:
    client = None if peer is None else (peer, 4711)
    return {"type": "http", "client": client, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}


@pytest.mark.parametrize("host", ["127.0.0.1:5002", "localhost:5002", "LOCALHOST", "[::1]:5002", "127.5.0.1"])
def test_on_loopback_nobody_needs_a_token(host: str) -> None:
    open_door = access(on_loopback=True)

    open_door.require_admin(scope(host=host))
    open_door.require_change(scope(host=host))


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"host": "evil.example:5002"}, {"origin": "null"}]
)
def test_on_loopback_a_web_page_of_another_host_is_refused(headers: dict[str, str]) -> None:
    door = access(on_loopback=True)

    with pytest.raises(Forbidden):
        door.require_admin(scope(**headers))
    with pytest.raises(Forbidden):
        door.require_change(scope(**headers))


def test_on_loopback_a_page_of_this_machine_may() -> None:
    access(on_loopback=True).require_change(scope(origin="http://localhost:8000", host="127.0.0.1:5002"))


def test_a_host_that_is_no_host_is_refused_and_is_no_error() -> None:
    with pytest.raises(Forbidden):
        access(on_loopback=True).require_admin(scope(host="[::1"))


def test_public_changes_do_not_open_loopback_to_web_pages() -> None:
    with pytest.raises(Forbidden):
        access(on_loopback=True, allow_public_changes=True).require_change(scope(origin="http://evil.example"))


def test_the_token_opens_a_proxied_loopback() -> None:
    access(on_loopback=True, admin_token=TOKEN).require_admin(scope(host="models.example", **BEARER))


def test_beyond_loopback_the_token_is_needed() -> None:
    door = access(on_loopback=False, admin_token=TOKEN)

    door.require_admin(scope(**BEARER))
    door.require_change(scope(authorization=f"bearer {TOKEN}"))
    for headers in (
        {},
        {"authorization": TOKEN},
        {"authorization": "Bearer another-token-altogether"},
        {"authorization": ""},
    ):
        with pytest.raises(Unauthorized):
            door.require_admin(scope(**headers))
        with pytest.raises(Unauthorized):
            door.require_change(scope(**headers))


def test_beyond_loopback_and_without_a_token_nobody_may_and_the_message_says_what_to_set() -> None:
    door = access(on_loopback=False)

    with pytest.raises(Forbidden, match="ADMIN_TOKEN"):
        door.require_admin(scope(**BEARER))


def test_an_empty_bearer_is_not_the_token_that_is_not_set() -> None:
    with pytest.raises(Forbidden):
        access(on_loopback=False).require_admin(scope(authorization="Bearer "))


def test_public_changes_open_uploads_and_not_the_administration() -> None:
    door = access(on_loopback=False, admin_token=TOKEN, allow_public_changes=True)

    door.require_change(scope(peer="192.0.2.7"))
    with pytest.raises(Unauthorized):
        door.require_admin(scope(peer="192.0.2.7"))


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", None, "192.0.2.2"])
def test_a_process_of_this_machine_may_post_its_figures(peer: str | None) -> None:
    Access.require_own_machine({**scope(peer, host="192.0.2.2:5002"), "server": ("192.0.2.2", 5002)})


def test_another_machine_may_not_post_figures_nor_a_web_page_on_this_one() -> None:
    for caller in (scope("192.0.2.7"), scope("127.0.0.1", origin="http://evil.example")):
        with pytest.raises(Forbidden):
            Access.require_own_machine({**caller, "server": ("192.0.2.2", 5002)})

"""Secrets are made once, belong together, and never appear where others read them."""

import base64
import hashlib
import json
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from contracts.queue import ALL_QUEUES
from deployment.secrets import BadSecret, make_secrets

PASSWORD = "p:a/s@s#w%o?r&d-of-20"


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_all_files_are_made_and_a_second_call_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    made = make_secrets(folder, {})
    before = content(folder)

    assert set(made) == before.keys()
    assert make_secrets(folder, {}) == []
    assert content(folder) == before
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_deployments_share_no_secret(tmp_path: Path) -> None:
    make_secrets(tmp_path / "a", {})
    make_secrets(tmp_path / "b", {})

    one, other = content(tmp_path / "a"), content(tmp_path / "b")

    assert all(one[name] != other[name] for name in one)


def test_a_given_password_is_the_one_in_both_addresses(tmp_path: Path) -> None:
    make_secrets(tmp_path, {"POSTGRES_PASSWORD": PASSWORD, "RABBITMQ_PASSWORD": PASSWORD})

    files = content(tmp_path)

    assert files["postgres_password"] == PASSWORD
    for name in ("database_url", "rabbitmq_url"):
        assert unquote(urlsplit(files[name]).password or "") == PASSWORD


def test_the_definitions_know_one_user_by_a_salted_hash(tmp_path: Path) -> None:
    make_secrets(tmp_path, {"RABBITMQ_PASSWORD": PASSWORD})

    definitions = json.loads(content(tmp_path)["rabbitmq_definitions.json"])
    (user,) = definitions["users"]
    hashed = base64.b64decode(user["password_hash"])

    assert user["name"] == "inference"
    assert hashed[4:] == hashlib.sha256(hashed[:4] + PASSWORD.encode()).digest()
    assert [queue["name"] for queue in definitions["queues"]] == list(ALL_QUEUES)
    assert {queue["arguments"]["x-queue-type"] for queue in definitions["queues"]} == {"quorum"}


@pytest.mark.parametrize("value", ["short", "with a space in it....", "café-café-café-café"])
def test_an_unusable_secret_is_refused_before_anything_is_written(tmp_path: Path, value: str) -> None:
    with pytest.raises(BadSecret, match="INTERNAL_TOKEN must be"):
        make_secrets(tmp_path / "secrets", {"INTERNAL_TOKEN": value})

    assert not (tmp_path / "secrets").exists()


def test_a_password_that_differs_from_the_one_in_use_is_refused(tmp_path: Path) -> None:
    make_secrets(tmp_path, {"POSTGRES_PASSWORD": PASSWORD})

    with pytest.raises(BadSecret, match="change it in the running service first"):
        make_secrets(tmp_path, {"POSTGRES_PASSWORD": "another-password-of-30"})


def test_half_a_pair_is_named_and_not_replaced(tmp_path: Path) -> None:
    make_secrets(tmp_path, {})
    (tmp_path / "rabbitmq_url").unlink()

    with pytest.raises(BadSecret, match=r"rabbitmq_definitions\.json but not rabbitmq_url"):
        make_secrets(tmp_path, {})

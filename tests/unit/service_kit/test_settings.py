from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from service_kit.settings import BrokerAddress, HeaderToken, HttpAddress, Settings, load


class Example(Settings):
    private_api_url: str
    internal_token: SecretStr = Field(min_length=16)
    port: int = Field(default=8000, ge=1)
    rabbitmq_url: SecretStr | None = None


class Addresses(Settings):
    private_api_url: HttpAddress
    rabbitmq_url: BrokerAddress = None
    internal_token: HeaderToken = SecretStr("0123456789abcdef")
    lease_seconds: float = 30


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (
        "PRIVATE_API_URL",
        "INTERNAL_TOKEN",
        "INTERNAL_TOKEN_FILE",
        "PORT",
        "RABBITMQ_URL",
        "RABBITMQ_URL_FILE",
        "LEASE_SECONDS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRIVATE_API_URL", "http://private-api:7000")
    return monkeypatch


def test_a_secret_may_come_from_the_file_that_its_variable_names(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef with spaces \n")
    environment.setenv("INTERNAL_TOKEN_FILE", str(tmp_path / "token"))

    assert load(Example).internal_token.get_secret_value() == "0123456789abcdef with spaces "


def test_an_optional_secret_may_come_from_a_file_too(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("amqp://u:p@h/")
    environment.setenv("INTERNAL_TOKEN", "0123456789abcdef")
    environment.setenv("RABBITMQ_URL_FILE", str(tmp_path / "url"))

    url = load(Example).rabbitmq_url

    assert url is not None
    assert url.get_secret_value() == "amqp://u:p@h/"


def test_what_is_given_counts_before_the_environment_and_that_before_a_file(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("from the file, long enough")
    environment.setenv("INTERNAL_TOKEN_FILE", str(tmp_path / "token"))
    environment.setenv("INTERNAL_TOKEN", "from the environment")
    environment.setenv("PORT", "9000")

    settings = load(Example, port=9001)

    assert settings.internal_token.get_secret_value() == "from the environment"
    assert settings.port == 9001


def test_an_empty_variable_is_as_good_as_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("INTERNAL_TOKEN", "0123456789abcdef")
    environment.setenv("PORT", "")

    assert load(Example).port == 8000


def test_each_mistake_is_one_line_that_names_the_variable_and_never_shows_a_value(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("INTERNAL_TOKEN", "too-short-hush")
    environment.setenv("PORT", "zero")

    with pytest.raises(SystemExit) as stopped:
        load(Example)

    assert stopped.value.code not in (0, None)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["INTERNAL_TOKEN", "PORT"]
    assert "hush" not in "".join(lines)


def test_a_secret_file_that_cannot_be_read_stops_the_process_and_names_the_variable(
    environment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("INTERNAL_TOKEN_FILE", str(tmp_path / "missing"))

    with pytest.raises(SystemExit) as stopped:
        load(Example)

    said = f"{stopped.value.code} {capsys.readouterr().err}"
    assert "INTERNAL_TOKEN_FILE" in said
    assert "No such file" in said


def test_a_secret_never_shows_in_what_is_printed(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("INTERNAL_TOKEN", "hush-hush-hush-hush")

    assert "hush" not in repr(load(Example))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRIVATE_API_URL", "private-api:7000"),
        ("PRIVATE_API_URL", "http://:7000"),
        ("PRIVATE_API_URL", "http://private-api:hush"),
        ("RABBITMQ_URL", "hush"),
        ("RABBITMQ_URL", "http://user:hush@broker/"),
        ("RABBITMQ_URL", "amqp://user:hu#sh@broker/"),
        ("INTERNAL_TOKEN", "hush-hush-hush-hush\n-hush"),
        ("INTERNAL_TOKEN", "hush hush hush hush"),
        ("INTERNAL_TOKEN", "hüsh-hush-hush-hush"),
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "nan"),
    ],
)
def test_a_value_that_would_fail_later_is_refused_at_the_start_and_not_shown(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    environment.setenv(name, value)

    with pytest.raises(SystemExit) as stopped:
        load(Addresses)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith(f"configuration: {name}: ")
    assert said.count("\n") == 1
    assert "hu" not in said


def test_a_secret_file_that_holds_no_text_stops_the_process_with_one_line(
    environment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe" * 20)
    environment.setenv("INTERNAL_TOKEN_FILE", str(tmp_path / "token"))

    with pytest.raises(SystemExit) as stopped:
        load(Example)

    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("configuration: INTERNAL_TOKEN_FILE: ")

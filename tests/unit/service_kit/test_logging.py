import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service_kit.logging import LogFormat, configure, get_logger


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def test_a_line_is_json_with_action_service_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure("example", log_format="json")

    with structlog.contextvars.bound_contextvars(task="abcdefgh…"):
        get_logger("x").warning("lease_lost", attempt=2)

    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"action": "lease_lost", "attempt": 2, "level": "warning", "service": "example", "task": "abcdefgh…"}


def test_lines_of_libraries_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure("example", log_format="json")

    logging.getLogger("uvicorn.error").error("went %s", "wrong", extra={"port": 1})
    logging.getLogger("httpx").info("a request line that nobody wants")

    line = json.loads(capsys.readouterr().err)
    assert (line["action"], line["service"], line["level"], line["port"]) == ("went wrong", "example", "error", 1)


def test_the_level_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    configure("example", level="warning", log_format="json")

    get_logger("x").info("quiet")

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    configure("example", log_format=log_format)
    token = "hush" * 5

    try:
        _ = 1 // len(token.strip("hus"))
    except ZeroDivisionError:
        get_logger("x").exception("crashed")

    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert token not in said

"""The server's options may stand before the command or after it; the nearest one counts."""

import pytest
from click.testing import CliRunner

from inference_client.cli.application import infer

NOBODY = "http://127.0.0.1:9"
OTHER = "http://127.0.0.1:10"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--url", NOBODY, "models", "list"], NOBODY),
        (["models", "list", "--url", NOBODY], NOBODY),
        (["--url", OTHER, "models", "list", "--url", NOBODY], NOBODY),
    ],
)
def test_the_nearest_url_is_asked(arguments: list[str], asked: str) -> None:
    result = CliRunner().invoke(infer, arguments, env={"INFER_URL": "http://127.0.0.1:11"})

    assert result.exit_code == 3
    assert asked in result.output


def test_json_before_the_command_counts() -> None:
    result = CliRunner().invoke(infer, ["--json", "--url", NOBODY, "models", "list"])

    assert '"ok"' in result.stdout

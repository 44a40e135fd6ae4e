"""The reference pages name what there is: every command, every option, every error."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import inference_client
from inference_client.cli import endings
from inference_client.cli.application import infer

REFERENCE = Path(__file__).parents[3] / "documentation" / "reference"


def commands(group: click.Group, path: str = "infer") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if command.callback is None or not command.callback.__module__.startswith("inference_client"):
            continue
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(
    ("path", "command"), list(commands(infer)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_page_of_the_command_names_every_command_and_option(path: str, command: click.Command) -> None:
    page = (REFERENCE / "cli.md").read_text()

    options = [name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts]

    assert path.split()[1] in page
    assert path.rsplit(maxsplit=1)[-1] in page
    assert [name for name in options if f"`{name}" not in page and f"[{name}" not in page] == []


def test_the_page_of_the_command_has_every_exit_status() -> None:
    page = (REFERENCE / "cli.md").read_text()

    named = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}

    statuses = {value for name, value in vars(endings).items() if type(value) is int and not name.startswith("_")}
    assert named == statuses | {0}


def test_the_page_of_the_client_has_every_error() -> None:
    page = (REFERENCE / "python_client.md").read_text()

    errors = [
        name
        for name in inference_client.__all__
        if isinstance(getattr(inference_client, name), type)
        and issubclass(getattr(inference_client, name), inference_client.ClientError)
    ]

    assert len(errors) == 13
    assert [name for name in errors if name not in page] == []

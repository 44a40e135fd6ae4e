"""The top of the command tree. Commands are imported when asked for; other packages add theirs by entry point.

A package adds a command with an entry point of the group ``infer.commands`` whose value is a ``click.Command``.
"""

import importlib
import importlib.metadata

import click

from inference_client.cli.server_options import on_top

ENTRY_POINT_GROUP = "infer.commands"
_DISTRIBUTION = "inference-server"

_OWN = {
    "models": ("inference_client.cli.models", "Register, list, show and remove models."),
    "run": ("inference_client.cli.run", "Send files to a model, wait, and fetch what it makes of them."),
    "tasks": ("inference_client.cli.tasks", "Status, log, output, cancelling and removal of tasks."),
}


class CommandTree(click.Group):
    """Knows the names of all commands and imports none of them before it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Our own commands and those of other packages."""
        return sorted({*_OWN, *_added()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Import one command."""
        if cmd_name in _OWN:
            command: click.Command = getattr(importlib.import_module(_OWN[cmd_name][0]), cmd_name)
            return command
        added = _added().get(cmd_name)
        return _load(added) if added else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """List the commands without importing them."""
        rows = [(name, sentence) for name, (_, sentence) in _OWN.items()]
        rows += [(name, _sentence_of(point)) for name, point in sorted(_added().items()) if name not in _OWN]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _added() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _load(point: importlib.metadata.EntryPoint) -> click.Command:
    try:
        command = point.load()
    except ImportError as error:
        raise click.ClickException(f"The command {point.name} cannot be loaded from {point.value}: {error}") from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"The command {point.name}, {point.value}, is no click.Command.")
    return command


def _sentence_of(point: importlib.metadata.EntryPoint) -> str:
    if point.dist is not None and point.dist.name == _DISTRIBUTION:
        return _load(point).get_short_help_str(limit=100)  # of our own, known to import quickly
    return f"From {point.module.partition('.')[0]}; see 'infer {point.name} --help'."


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"infer {importlib.metadata.version(_DISTRIBUTION)}")
        ctx.exit()


@click.group(cls=CommandTree, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@on_top
def infer() -> None:
    """Use the models of an inference server.

    \b
    infer models list
    infer run MODEL scan.dcm -o masks.zip
    infer tasks list
    """  # noqa: D301 - \b keeps click from joining the lines

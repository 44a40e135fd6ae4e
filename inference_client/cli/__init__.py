"""The command ``infer``: reads arguments, calls the client, tells people or programs what came of it.

What it prints is for people on stderr and a result on stdout; with ``--json``, exactly one JSON object on stdout.
"""

import sys
from collections.abc import Sequence

import click

from inference_client.cli.application import infer
from inference_client.cli.endings import INTERRUPTED, USAGE, Ending
from inference_client.cli.invocation import Invocation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status, as :mod:`inference_client.cli.endings` lists them."""
    invocation = Invocation()
    given = None if arguments is None else list(arguments)
    try:
        result = infer.main(args=given, prog_name="infer", standalone_mode=False, obj=invocation)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" Try '{context.command_path} --help'." if context else ""
        ending = Ending(USAGE, "usage", error.format_message() + hint)
    except (click.Abort, KeyboardInterrupt):
        ending = Ending(INTERRUPTED, "interrupted", "interrupted.")
    else:
        return result if isinstance(result, int) else 0
    return ending.tell(invocation, sys.stdout, sys.stderr)

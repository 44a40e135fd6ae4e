"""The options that every command with a server has, and the one place where a command's errors become its ending."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click
from click.core import ParameterSource

from inference_client.cli.endings import ending_of, ending_of_interrupt, ending_of_local_file
from inference_client.cli.invocation import DEFAULT_URL, Invocation

P = ParamSpec("P")


class Interrupted(Exception):
    """Ctrl-C, at a moment of which more can be said than that."""


def with_server(command: Callable[Concatenate[Invocation, P], None]) -> Callable[..., None]:
    """Give a command the options that name the server and the form of the answer; it receives the invocation first."""

    @click.option(
        "--url", envvar="INFER_URL", show_envvar=True, default=DEFAULT_URL, show_default=True, help="The server."
    )
    @click.option(
        "--ca",
        envvar="INFER_CA",
        show_envvar=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="CA certificates (PEM) for a server whose authority the system does not know.",
    )
    @click.option(
        "--token",
        envvar="INFER_TOKEN",
        show_envvar=True,
        help="Bearer token for a gate before the server; others see an argument, so prefer the environment.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for programs.")
    @click.pass_context
    @functools.wraps(command)
    def wrapper(
        context: click.Context,
        /,
        *args: Any,
        url: str,
        ca: Path | None,
        token: str | None,
        as_json: bool,
        **options: Any,
    ) -> None:
        invocation = context.ensure_object(Invocation)
        own = {"url": url, "ca": ca, "token": token, "as_json": as_json}
        chosen = {name: _nearest(context, invocation, name, value) for name, value in own.items()}
        invocation.url, invocation.ca = chosen["url"].rstrip("/"), chosen["ca"]
        invocation.token, invocation.as_json = chosen["token"], chosen["as_json"]
        exit_status = _run(invocation, functools.partial(command, invocation, *args, **options))
        context.exit(exit_status)

    return wrapper


def on_top(group: Callable[..., None]) -> Callable[..., None]:
    """Let the options of :func:`with_server` also stand before the command: ``infer --url … models list``."""

    @click.option("--url", help="The server; before or after the command.")
    @click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CA certificates (PEM).")
    @click.option("--token", help="Bearer token.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
    @click.pass_context
    @functools.wraps(group)
    def wrapper(context: click.Context, /, **options: Any) -> None:
        given = {name: value for name, value in options.items() if value}
        context.ensure_object(Invocation).given_on_top.update(given)
        group()

    return wrapper


def _nearest(context: click.Context, invocation: Invocation, name: str, value: Any) -> Any:
    """The option after the command, else the one before it, else the environment's or the default."""
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        return value
    return invocation.given_on_top.get(name, value)


def _run(invocation: Invocation, command: Callable[[], None]) -> int:
    from contracts.errors import PlatformError
    from inference_client.errors import ClientError

    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        ending = ending_of_interrupt(str(error))
    except (ClientError, PlatformError) as error:
        ending = ending_of(error)
    except OSError as error:
        ending = ending_of_local_file(error)
    else:
        return 0
    return ending.tell(invocation, sys.stdout, sys.stderr)


def _give_up_stdout() -> None:
    """Whoever read our output is gone (``| head``): let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Option values that several commands take, read with the sentence that says how they are written."""

from datetime import timedelta

import click

from inference_client.cli.quantities import parse_duration, parse_size


def size(text: str) -> int:
    """A size such as 512M, in bytes; the ``type`` of an option."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def duration(text: str) -> timedelta:
    """A duration such as 90s or 2h; the ``type`` of an option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error

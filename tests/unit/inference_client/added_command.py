"""What another package would add by entry point."""

import click


@click.command()
@click.option("--name")
def good(name: str) -> None:
    click.echo(f"hello {name}")


wrong = "not a command"

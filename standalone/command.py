"""The command ``infer up``."""

import sys
from pathlib import Path

import click

from standalone.layout import default_data_folder, default_models_folder


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_data_folder,
    show_default="~/.local/share/inference-server",
    envvar="INFER_DATA",
    help="Where everything is kept; the next start finds it again.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--online-port",
    type=click.IntRange(0, 65535),
    default=5002,
    show_default=True,
    help="Where online endpoints are called; 0 takes a free one.",
)
@click.option(
    "--endpoints",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    default=None,
    help="File of online endpoints, JSON; see the how-to pages.",
)
@click.option(
    "--runner",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    show_default=True,
    help="What runs the models: docker containers, or processes in a sandbox; auto finds out which can run them.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=None, help="Tasks at once; by default one per GPU, or one."
)
@click.option(
    "--models",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=None,
    show_default="the examples",
    help="Folder of model folders (each with a model.toml) that the process runner can run.",
)
@click.option(
    "--examples",
    is_flag=True,
    help="Register every model folder, and serve every example endpoint, whose needs are installed.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="WARNING",
    show_default=True,
    help="From where on events are logged.",
)
def up(
    *,
    data: Path,
    host: str,
    port: int,
    online_port: int,
    endpoints: Path | None,
    runner: str,
    workers: int | None,
    models: Path | None,
    examples: bool,
    log_level: str,
) -> None:
    """Run the whole platform on this machine: no other server is needed.

    It listens on loopback unless told otherwise, and only on loopback may users register models. Ctrl-C stops it;
    data is kept for the next start.
    """
    from contracts.errors import PlatformError
    from standalone.platform import Options, run

    options = Options(
        data=data,
        host=host,
        port=port,
        online_port=online_port,
        endpoints=endpoints,
        runner=runner,
        workers=workers,
        models=models or default_models_folder(),
        wants_models=examples or models is not None,
        examples=examples,
        log_level=log_level,
    )
    try:
        sys.exit(run(options))
    except (PlatformError, OSError) as error:
        raise click.ClickException(str(error)) from error

"""The command ``infer worker``."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--gateway",
    "online_gateway",
    metavar="ADDRESS[,ADDRESS]",
    envvar="ONLINE_GATEWAY",
    required=True,
    help="Where gateways await workers: tcp://HOST:5010, or unix:///path on their own host.",
)
@click.option("--endpoint", required=True, help="What to serve; modelhost serves every uploaded ONNX model.")
@click.option(
    "--modules",
    "modules_dir",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where the endpoints' Python files lie on this host; by default where they lie on the gateway's.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="File with the gateways' worker token; by default WORKER_TOKEN or WORKER_TOKEN_FILE say it.",
)
@click.option(
    "--provider", "onnx_provider", type=click.Choice(["auto", "cpu", "cuda"]), help="What ONNX models run on."
)
@click.option("--worker-id", help="A name of its own; by default one is made at each start.")
@click.option(
    "--contents",
    "contents_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files of models; by default the system's for temporary files.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="From where on events are logged; INFO by default.",
)
def worker(token_file: Path | None, **options: object) -> None:
    """Serve an endpoint from this host: models stay in memory, calls come from a gateway.

    It dials the gateway, again and again while that is away, and ends in order with Ctrl-C or SIGTERM.
    """
    from online_worker.config import OnlineWorkerSettings
    from online_worker.main import end, run
    from service_kit.settings import load

    given = {name: value for name, value in options.items() if value is not None}
    if token_file is not None:
        given["worker_token"] = _token(token_file)
    end(run(load(OnlineWorkerSettings, **given)))


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} holds no token: {error}") from error

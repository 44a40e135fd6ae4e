"""``infer models``: what the server can run."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inference_client.cli.invocation import Invocation
from inference_client.cli.options import duration, size
from inference_client.cli.server_options import with_server

if TYPE_CHECKING:
    from contracts.models import ModelView
    from inference_client.client import InferenceClient

_ADD_OPTIONS = (
    click.option("--id", "human_readable_id", metavar="ID", help="The name that tasks use."),
    click.option("--tag", "container_tag", metavar="TAG", help="The container image."),
    click.option("--description", help="For people."),
    click.option("--gpu/--no-gpu", "use_gpu", default=None, help="Run where a GPU is."),
    click.option(
        "--content",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="ZIP",
        help="A zip that the container finds in its model folder; instead of the folder's content script.",
    ),
    click.option("--timeout", type=duration, metavar="DURATION", help="Wall clock of one run, such as 2h."),
    click.option("--memory", "memory_bytes", type=size, metavar="SIZE", help="Memory with swap, such as 4G."),
    click.option("--cpus", type=float, help="CPU cores; 0.5 is half a core."),
    click.option("--pids", type=int, help="Processes and threads at once."),
    click.option("--shm", "shm_bytes", type=size, metavar="SIZE", help="Size of /dev/shm, such as 64M."),
    click.option("--network", type=click.Choice(["none", "bridge"]), help="Bridge only where the operator allows it."),
    click.option("--capability", "capabilities", multiple=True, metavar="NAME", help="To keep; may be given again."),
    click.option("--input-mountpoint", metavar="PATH", help="Where the container finds its input. [default: /input]"),
    click.option("--output-mountpoint", metavar="PATH", help="Where it leaves its output. [default: /output]"),
    click.option("--model-mountpoint", metavar="PATH", help="Where it finds its model content. [default: /model]"),
)


def _add_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_ADD_OPTIONS):
        command = option(command)
    return command


@click.group(short_help="Register, list, show and remove models.")
def models() -> None:
    """Models: container images, registered under a name."""


@models.command("add")
@click.argument(
    "folders", metavar="[FOLDER]...", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@_add_options
@with_server
def add(invocation: Invocation, /, folders: tuple[Path, ...], **options: Any) -> None:
    """Register models: each FOLDER by its model.toml, or one by --id and --tag.

    \b
    infer models add models_examples/pass_through
    infer models add --id segment-ct --tag registry.example.org/segment-ct:3 --gpu --memory 8G

    An option stands above the folder's own value.
    """  # noqa: D301 - \b keeps click from joining the lines
    given = _given(options)
    if not folders and not {"human_readable_id", "container_tag"} <= given.keys():
        raise click.UsageError("Name a folder with a model.toml, or give --id and --tag.")
    if len(folders) > 1 and given:
        raise click.UsageError("Options that describe a model go with one folder only.")
    with invocation.client() as client:
        views = [_add_folder(client, folder, given) for folder in folders] or [_add_by_options(client, given)]
    if invocation.as_json:
        click.echo(json.dumps({"ok": True, "models": [view.model_dump(mode="json") for view in views]}))
        return
    for view in views:
        click.echo(view.human_readable_id)


@models.command("list")
@with_server
def list_(invocation: Invocation) -> None:
    """All models of the server."""
    with invocation.client() as client:
        views = client.list_models()
    if invocation.as_json:
        click.echo(json.dumps({"ok": True, "models": [view.model_dump(mode="json") for view in views]}))
        return
    from inference_client.cli.sentences import table

    rows = [
        (view.human_readable_id, "gpu" if view.use_gpu else "cpu", view.container_tag, _first_line(view.description))
        for view in views
    ]
    click.echo(table(("ID", "ON", "IMAGE", "DESCRIPTION"), rows) if rows else "The server has no models yet.")


@models.command("show")
@click.argument("model")
@with_server
def show(invocation: Invocation, model: str) -> None:
    """One model with its limits."""
    with invocation.client() as client:
        view = client.get_model(model)
    if invocation.as_json:
        click.echo(json.dumps({"ok": True, "model": view.model_dump(mode="json")}))
        return
    _print_model(view)


@models.command("remove")
@click.argument("model")
@with_server
def remove(invocation: Invocation, model: str) -> None:
    """Remove a model that no live task needs."""
    with invocation.client() as client:
        client.remove_model(model)
    click.echo(json.dumps({"ok": True, "removed": model}) if invocation.as_json else "removed")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, under the names of the registration's fields."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    timeout: timedelta | None = given.pop("timeout", None)
    if timeout is not None:
        given["timeout_seconds"] = timeout.total_seconds()
    return given


def _add_folder(client: "InferenceClient", folder: Path, given: dict[str, Any]) -> "ModelView":
    from contracts.model_file import ModelFile
    from inference_client.cli.registration import with_options
    from inference_client.model_folder import made_content, of_folder

    model_file = ModelFile.load(folder)
    script = None if "content" in given else model_file.content_script
    with made_content(folder, script) as content:
        made = {"content": content} if content is not None else {}
        return client.register(with_options(of_folder(model_file), given | made))


def _add_by_options(client: "InferenceClient", given: dict[str, Any]) -> "ModelView":
    from inference_client.cli.registration import with_options
    from inference_client.model_calls import Registration

    named = Registration(human_readable_id=given["human_readable_id"], container_tag=given["container_tag"])
    return client.register(with_options(named, given))


def _print_model(view: "ModelView") -> None:
    from inference_client.cli.endings import printable
    from inference_client.cli.quantities import show_size

    limits = view.limits.model_dump(exclude_none=True)
    shown = {name: show_size(value) if name.endswith("_bytes") else value for name, value in limits.items()}
    lines = [
        view.human_readable_id,
        f"description  {view.description or '-'}",
        f"image        {view.container_tag}",
        f"runs on      {'gpu' if view.use_gpu else 'cpu'}",
        f"content      {show_size(view.content.size) if view.content else '-'}",
        f"folders      {view.input_mountpoint} {view.output_mountpoint} {view.model_mountpoint}",
        f"asks for     {', '.join(f'{name} {value}' for name, value in shown.items()) or 'the defaults'}",
        f"registered   {view.created_at:%Y-%m-%d %H:%M:%S} UTC",
    ]
    click.echo(printable("\n".join(lines)))


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]

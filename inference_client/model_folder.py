"""A model folder as it is registered: what its ``model.toml`` says, and the content that its script makes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from contracts.model_file import ModelFile
from inference_client.errors import InputRefused
from inference_client.model_calls import Mountpoints, Registration

_CONTENT_WITHIN = timedelta(minutes=10)
_SHOWN_ERROR = 2000


def of_folder(model_file: ModelFile) -> Registration:
    """What the folder's ``model.toml`` says, without content."""
    return Registration(
        human_readable_id=model_file.human_readable_id,
        container_tag=model_file.container_tag,
        description=model_file.description,
        use_gpu=model_file.gpu,
        limits=model_file.limits,
        mountpoints=Mountpoints(model_file.input_mountpoint, model_file.output_mountpoint, model_file.model_mountpoint),
    )


@contextmanager
def made_content(folder: Path, script: str | None) -> Iterator[Path | None]:
    """The zip that the folder's content script writes, run with this Python; None where it has no script.

    Raises
    ------
    InputRefused
        The script is missing, fails, takes more than ten minutes, or writes nothing.
    """
    if script is None:
        yield None
        return
    path = folder / script
    if not path.is_file():
        raise InputRefused(f"{path}, named as content_script, does not exist.")
    with TemporaryDirectory(prefix="infer-content-") as temporary:
        content = Path(temporary) / "content.zip"
        _run_script(path.resolve(), content)
        if not content.is_file():
            raise InputRefused(f"{path} wrote no zip to the path that it was given.")
        yield content


def _run_script(script: Path, content: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(content)],
            cwd=script.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_CONTENT_WITHIN.total_seconds(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputRefused(f"{script} did not end within {_CONTENT_WITHIN}.") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")[-_SHOWN_ERROR:].strip()
        raise InputRefused(f"{script} failed with exit code {done.returncode}: {said}")

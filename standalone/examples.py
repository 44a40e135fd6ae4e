"""Registers model folders on the running platform, as any user would: over its public API."""

import subprocess
import sys
import tempfile
from pathlib import Path

from contracts.errors import InvalidRequest
from contracts.model_file import ModelFile
from inference_client import InferenceClient

_SCRIPT_SECONDS = 120


def register(client: InferenceClient, folder: Path, model: ModelFile) -> bool:
    """Register the folder's model unless its id is taken; whether it was new.

    Raises
    ------
    InvalidRequest
        Its content script fails.
    ClientError
        The platform refuses it.
    """
    if model.human_readable_id in {known.human_readable_id for known in client.list_models()}:
        return False
    with tempfile.TemporaryDirectory(prefix="infer-content-") as scratch:
        content = None
        if model.content_script is not None:
            content = Path(scratch) / "model.zip"
            _make_content(folder, model.content_script, content)
        client.add_model(
            model.human_readable_id,
            model.container_tag,
            description=model.description,
            use_gpu=model.gpu,
            limits=model.limits,
            input_mountpoint=model.input_mountpoint,
            output_mountpoint=model.output_mountpoint,
            model_mountpoint=model.model_mountpoint,
            content=content,
        )
    return True


def _make_content(folder: Path, script: str, destination: Path) -> None:
    command = [sys.executable, str(folder / script), str(destination)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=_SCRIPT_SECONDS, check=False)
    if made.returncode != 0:
        raise InvalidRequest(f"{folder.name}/{script} failed: {made.stderr.strip()[-500:]}")

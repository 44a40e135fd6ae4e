"""Registers model folders on the running platform, as any user would: over its public API."""

from pathlib import Path

from contracts.model_file import ModelFile
from inference_client import InferenceClient


def register(client: InferenceClient, folder: Path, model: ModelFile) -> bool:
    """Register the folder's model unless its id is taken; whether it was new.

    Raises
    ------
    ClientError
        The platform refuses it, or its content script fails.
    """
    if model.human_readable_id in {known.human_readable_id for known in client.list_models()}:
        return False
    client.add_model_folder(folder)
    return True

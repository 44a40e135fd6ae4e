"""All model folders of the repository in one place: the examples and those that misbehave."""

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.model_file import MODEL_FILE, ModelFile
from models_examples.build import example_folders
from tests.support.hostile_models import HOSTILE_MODELS


def hostile_folders() -> dict[str, Path]:
    """The folders of tests/data/models by their names."""
    return {path.parent.name: path.parent for path in sorted(HOSTILE_MODELS.glob(f"*/{MODEL_FILE}"))}


def make_sample(folder: Path, target: Path) -> Path:
    """The example's own sample input, made by its script."""
    script = ModelFile.load(folder).sample_script
    assert script is not None
    subprocess.run([sys.executable, str(folder / script), str(target)], check=True, timeout=120)
    return target


@pytest.fixture(scope="session")
def all_models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a link to each model folder, for the process runner."""
    folder = tmp_path_factory.mktemp("models")
    for model in (*example_folders().values(), *hostile_folders().values()):
        (folder / model.name).symlink_to(model)
    return folder

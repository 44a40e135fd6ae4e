"""Models that misbehave, in tests/data/models: as folders for the process runner and as images for the docker runner."""

import functools
import hashlib
import itertools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from contracts.model_file import ModelFile
from contracts.models import BlobRef, Limits, ModelForRun
from contracts.tasks import Assignment

HOSTILE_MODELS = Path(__file__).parents[1] / "data" / "models"

_task_ids = itertools.count(1)


def tag_of(name: str) -> str:
    """The container tag of a hostile model."""
    return ModelFile.load(HOSTILE_MODELS / name).container_tag


@pytest.fixture(scope="session")
def hostile_image(image_engine: docker.DockerClient, python_base_image: str) -> Callable[[str], str]:
    """Builds the image of a hostile model, once per session: ``hostile_image("fails")`` is its tag."""

    @functools.cache
    def build(name: str) -> str:
        tag = tag_of(name)
        image_engine.images.build(
            path=str(HOSTILE_MODELS / name), tag=tag, rm=True, buildargs={"PYTHON_IMAGE": python_base_image}
        )
        return tag

    return build


def limits(**overrides: Any) -> Limits:
    """Limits that a well-behaved test model stays within."""
    usual: dict[str, Any] = {
        "timeout_seconds": 60.0,
        "memory_bytes": 256 * 2**20,
        "cpus": 1.0,
        "pids": 64,
        "shm_bytes": 2**20,
    }
    return Limits(**(usual | overrides))


def assignment(tag: str, content: BlobRef | None = None, attempt: int = 1, **overrides: Any) -> Assignment:
    """An attempt, of a task of its own, of the model with this tag; ``overrides`` are limits or fields of the model."""
    of_model = {name: overrides.pop(name) for name in list(overrides) if name in ModelForRun.model_fields}
    model: dict[str, Any] = {
        "uid": "model-uid",
        "human_readable_id": "hostile",
        "container_tag": tag,
        "use_gpu": False,
        "input_mountpoint": "/input",
        "output_mountpoint": "/output",
        "model_mountpoint": "/model",
        "limits": limits(**overrides),
        "content": content,
    }
    return Assignment(
        task_id=next(_task_ids),
        uid="task-uid",
        attempt=attempt,
        input=BlobRef(sha256="0" * 64, size=1),
        model=ModelForRun(**(model | of_model)),
    )


def zip_of(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A zip with these files; a name that ends with a slash is a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def content_of(model_zip: Path) -> BlobRef:
    """The identity of a model zip."""
    data = model_zip.read_bytes()
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def unzipped(path: Path) -> dict[str, bytes]:
    """All names in a zip with their bytes."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}

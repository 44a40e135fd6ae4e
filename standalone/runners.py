"""Which runner a standalone platform takes, which cards it has, and which model folders can run here."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts.errors import InvalidRequest
from contracts.model_file import MODEL_FILE, ModelFile
from job_consumer.runner.catalogue import missing_modules

_NVIDIA_SMI_SECONDS = 10

RunnerName = Literal["docker", "process"]


@dataclass(frozen=True)
class Choice:
    """A runner, and why it was taken."""

    runner: RunnerName
    reason: str


def choose_runner(wanted: str, folders: list[tuple[Path, ModelFile]]) -> Choice:
    """The runner to use; ``auto`` takes docker where an engine answers and has the image of each of these folders.

    Raises
    ------
    InvalidRequest
        docker is wanted and no engine answers.
    """
    if wanted == "process":
        return Choice("process", "as asked")
    from job_consumer.runner.docker.local import engine_answers, has_image

    if not engine_answers():
        if wanted == "docker":
            raise InvalidRequest("No Docker engine answers; start one, set DOCKER_HOST, or use --runner process.")
        return Choice("process", "no Docker engine answers")
    if wanted == "docker":
        return Choice("docker", "as asked")
    missing = [model.human_readable_id for _, model in folders if not has_image(model.container_tag)]
    if missing:
        return Choice("process", f"the Docker engine has no image of {', '.join(missing)}")
    return Choice("docker", "a Docker engine answers")


def gpu_uuids() -> list[str]:
    """The UUIDs of this machine's NVIDIA cards, in their order; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


def model_folders(folder: Path) -> list[tuple[Path, ModelFile]]:
    """Every sub-folder that has a model.toml, with what it says, by name."""
    return [(path.parent, ModelFile.load(path.parent)) for path in sorted(folder.glob(f"*/{MODEL_FILE}"))]


def missing_needs(model: ModelFile, choice: Choice, *, has_gpu: bool) -> str | None:
    """Why the model cannot run here, in a few words; None when it can."""
    if model.gpu and not has_gpu:
        return "needs a GPU"
    if choice.runner == "docker":
        from job_consumer.runner.docker.local import has_image

        return None if has_image(model.container_tag) else f"the image {model.container_tag} is not built"
    absent = missing_modules(model)
    return f"needs the Python packages {', '.join(absent)}" if absent else None

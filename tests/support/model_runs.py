"""Builders for runs: assignments, zips, and one whole run from a script to its output."""

import io
import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from contracts.models import BlobRef, Limits, ModelForRun
from contracts.tasks import Assignment
from job_consumer.runner.base import Runner, RunResult

_task_ids = itertools.count(1)

MODEST = Limits(timeout_seconds=60, memory_bytes=64 * 2**20, cpus=1, pids=64, shm_bytes=2**20)


@dataclass(frozen=True)
class Done:
    """A run that was discarded: how it ended, what it left, and what of that was skipped."""

    result: RunResult
    output: dict[str, bytes]
    skipped: list[str]


def an_assignment(image: str, *, task_id: int | None = None, attempt: int = 1, **of_the_model: Any) -> Assignment:
    """An assignment of a task with a fresh id, unless one is given."""
    number = task_id if task_id is not None else next(_task_ids)
    model = ModelForRun(
        **{
            "uid": "a-model",
            "human_readable_id": "a-model",
            "container_tag": image,
            "use_gpu": False,
            "input_mountpoint": "/input",
            "output_mountpoint": "/output",
            "model_mountpoint": "/model",
            "limits": MODEST,
            "content": None,
        }
        | of_the_model
    )
    blob = BlobRef(sha256=f"{number:064x}", size=1)
    return Assignment(task_id=number, uid=f"uid-of-task-{number:030}", attempt=attempt, input=blob, model=model)


def limits(**changed: Any) -> Limits:
    """Modest limits, with some of them changed."""
    return MODEST.model_copy(update=changed)


def write_zip(path: Path, entries: Mapping[str, bytes | str]) -> Path:
    """A zip with these entries; names that end in a slash are folders."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def read_zip(path: Path) -> dict[str, bytes]:
    """Every entry of a zip."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run_to_the_end(runner: Runner, assignment: Assignment, folder: Path, entries: Mapping[str, bytes | str]) -> Done:
    """Prepare, execute, collect and discard."""
    name = f"{assignment.task_id}-{assignment.attempt}"
    run = runner.prepare(assignment, write_zip(folder / f"in-{name}.zip", entries), None)
    try:
        result = run.execute(Event())
        output_zip = folder / f"out-{name}.zip"
        skipped = run.collect(output_zip)
    finally:
        run.discard()
    return Done(result, read_zip(output_zip), skipped)

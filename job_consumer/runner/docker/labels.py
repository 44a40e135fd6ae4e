"""The names and labels of what we create on an engine; whatever carries no label of ours is never touched.

Labels identify, names are only unique. The task's uid stands in neither: who may list containers
may not read results.
"""

import hashlib
import secrets
from collections.abc import Mapping
from enum import StrEnum

from contracts.tasks import AttemptRef

INSTALLATION = "inference-server.installation"
KIND = "inference-server.kind"
TASK = "inference-server.task"
ATTEMPT = "inference-server.attempt"
CONSUMER = "inference-server.consumer"
CONTENT = "inference-server.content"
"""SHA-256 of the model content, in full."""
VOLUME = "inference-server.volume"
"""On the mark of complete model content: the volume that holds it."""


class Kind(StrEnum):
    """What a container or volume is for."""

    RUN = "run"
    """The container that runs a model."""
    INPUT = "input"
    OUTPUT = "output"
    FILLER = "filler"
    """A container that is never started: model content is written through it, and its name is a lock."""
    MODEL = "model"
    """A volume with model content, perhaps not complete."""
    MODEL_READY = "model-ready"
    """An empty volume whose labels say which MODEL volume is complete."""
    PROBE = "probe"


def attempt_labels(installation: str, kind: Kind, attempt: AttemptRef) -> dict[str, str]:
    """Labels of what belongs to one attempt and goes with it."""
    return {
        INSTALLATION: installation,
        KIND: kind,
        TASK: str(attempt.task_id),
        ATTEMPT: str(attempt.attempt),
        CONSUMER: attempt.consumer,
    }


def attempt_of(labels: Mapping[str, str] | None) -> AttemptRef | None:
    """The attempt that something belongs to; None for what belongs to none."""
    if not labels:
        return None
    task, attempt, consumer = labels.get(TASK, ""), labels.get(ATTEMPT, ""), labels.get(CONSUMER)
    if not (task.isdecimal() and attempt.isdecimal() and consumer):
        return None
    return AttemptRef(task_id=int(task), attempt=int(attempt), consumer=consumer)


def label_filter(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """The engine's filter for what carries all of these labels, each in full."""
    return {"label": [f"{name}={value}" for name, value in labels.items()]}


def unique_name(attempt: AttemptRef) -> str:
    """A name for one run, never used before: a crashed predecessor of the same attempt cannot be in the way."""
    return f"inference-server-{attempt.task_id}-{attempt.attempt}-{secrets.token_hex(4)}"


def model_name(installation: str, content_sha256: str) -> str:
    """The stem of all names that belong to one model content of one installation."""
    return f"inference-server-model-{content_sha256[:32]}-{short_digest(installation)}"


def short_digest(text: str) -> str:
    """Eight characters that stand for a text in names, where the text itself may hold any character."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]

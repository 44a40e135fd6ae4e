"""The queues between private_api and the consumers: names and arguments, the same on both sides."""

from collections.abc import Mapping
from types import MappingProxyType

QUEUE_CPU = "inference.tasks.cpu"
QUEUE_GPU = "inference.tasks.gpu"
ALL_QUEUES = (QUEUE_CPU, QUEUE_GPU)

QUEUE_ARGUMENTS: Mapping[str, str] = MappingProxyType({"x-queue-type": "quorum"})
"""Durable and replicated. Both sides declare with these, so a fresh broker needs no set-up."""


def queue_for(use_gpu: bool) -> str:
    """The queue of a task, by its model's need."""
    return QUEUE_GPU if use_gpu else QUEUE_CPU


def queues_of(has_gpu: bool, takes_cpu_tasks: bool = True) -> tuple[str, ...]:
    """The queues that a consumer serves, the scarcer work first; a CPU consumer never sees a GPU task."""
    if not has_gpu:
        return (QUEUE_CPU,)
    return (QUEUE_GPU, QUEUE_CPU) if takes_cpu_tasks else (QUEUE_GPU,)

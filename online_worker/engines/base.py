"""What the worker's loop needs of an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contracts.inference import TensorSpec
from contracts.worker_protocol import Call, Failure, Result
from online_worker.endpoint import Notify


@dataclass(frozen=True)
class ModelSource:
    """What one generation is made of."""

    endpoint: str
    config: Mapping[str, Any]
    content: Path | None
    """The generation's file; it stays there as long as the model is loaded."""
    worker_id: str
    notify: Notify


class LoadedModel(Protocol):
    """One generation in memory; one thread at a time uses it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str | None

    def infer(self, calls: Sequence[Call], *, together: bool) -> list[Result | Failure]:
        """Answer each call, in their order; whatever the model's code does becomes a Failure and never an exception."""
        ...

    def close(self) -> None:
        """Let go of all memory."""
        ...


class Engine(Protocol):
    """Loads models of one kind."""

    def load(self, source: ModelSource) -> LoadedModel:
        """Load and warm the model.

        Raises
        ------
        Exception
            Whatever keeps it from serving; the loop reports its message and trace.
        """
        ...

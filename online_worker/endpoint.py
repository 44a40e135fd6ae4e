"""The class that users subclass to serve a model of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from contracts.inference import InvalidInput, TensorSpec

__all__ = ["Endpoint", "EndpointContext", "InvalidInput", "Notify", "TensorSpec"]

Notify = Callable[[str, str], None]
"""Tells the operator something: its kind, and a sentence."""


@dataclass(frozen=True)
class EndpointContext:
    """What an endpoint is given when it is made."""

    name: str
    config: Mapping[str, Any]
    """The endpoint's entry of the configuration file, names as they stand there."""
    worker_id: str
    notify: Notify


class Endpoint:
    """One model in memory. Subclass it; implement :meth:`predict`, and what else the model needs.

    A call runs ``preprocess``, ``predict``, ``postprocess``, all calls in one thread; ``create``, ``load``, ``warm_up``
    and ``close`` run in another, while calls of the generation before are answered. A document call hands
    ``preprocess`` a dict of JSON values, and its answer must be JSON values too (numpy arrays and numbers are
    converted). A tensor call hands it a dict of numpy arrays by name (BYTES: arrays of ``bytes`` objects), and must be
    answered with such a dict.
    """

    inputs: ClassVar[tuple[TensorSpec, ...]] = ()
    """The tensors that it takes; a tensor call is checked against them, and refused where there are none."""
    outputs: ClassVar[tuple[TensorSpec, ...]] = ()
    version: str | None = None
    """The version of the code, where it has one; answers carry it."""

    def __init__(self, context: EndpointContext) -> None:
        self.context = context

    @classmethod
    def create(cls, context: EndpointContext) -> Self:
        """Make an instance; one is made for each generation."""
        return cls(context)

    def load(self, content: Path | None) -> None:
        """Load the model; ``content`` is the file that was installed with this generation, None where there is none.

        Whatever it raises refuses the generation, and the one before goes on serving.
        """

    def warm_up(self) -> None:
        """Run once what the first call should not have to wait for. What it raises refuses the generation."""

    def preprocess(self, inputs: dict[str, Any]) -> Any:
        """Turn a call's input into what predict takes.

        Raises
        ------
        InvalidInput
            The caller must send something else; the message says what.
        """
        return inputs

    def predict(self, prepared: Any) -> Any:
        """Run the model on one prepared input."""
        raise NotImplementedError(f"{type(self).__name__} must implement predict() or predict_batch().")

    def predict_batch(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """Run the model on several prepared inputs, where the configuration asks for batches; one answer each."""
        return [self.predict(one) for one in prepared]

    def postprocess(self, prediction: Any) -> Any:
        """Turn a prediction into the answer."""
        return prediction

    def close(self) -> None:
        """Let go of what is not memory: files, connections. Called once, after the last call of its generation."""

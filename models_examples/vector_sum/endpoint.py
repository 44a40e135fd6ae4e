"""Adds two numbers with a small neural network whose weights can be replaced while it serves.

``{"vector": [0.3, 0.7]}`` is answered with ``{"result": …}``; the tensor ``vector`` with the tensor ``result``.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from network import Array, Network, WeightsError, from_text

from online_worker.endpoint import Endpoint, InvalidInput, TensorSpec


class VectorSumEndpoint(Endpoint):
    """One network, with the weights of its generation."""

    inputs = (TensorSpec("vector", "FP32", (2,)),)
    outputs = (TensorSpec("result", "FP32", (1,)),)
    version = "1"
    _network: Network

    def load(self, content: Path | None) -> None:
        """Read the weights.

        Raises
        ------
        WeightsError
            There are none, or they are not of this network.
        """
        if content is None:
            raise WeightsError("The endpoint has no weights yet: send a file with /set_weights, or set CONTENT.")
        self._network = from_text(content.read_bytes())

    def warm_up(self) -> None:
        """Add nothing to nothing."""
        self._network.predict(np.zeros((1, 2)))

    def preprocess(self, inputs: dict[str, Any]) -> Any:
        """The vector, in float64; a tensor stays an array and a list of numbers a list, so that each gets its like."""
        vector = inputs.get("vector")
        if isinstance(vector, np.ndarray):
            if not np.isfinite(vector).all():
                raise InvalidInput("Both numbers of the vector must be finite.")
            return vector
        if not isinstance(vector, list) or len(vector) != 2 or not all(type(one) in {int, float} for one in vector):
            raise InvalidInput(f'Send {{"vector": [0.3, 0.7]}}, two numbers; {_shown(vector)} was sent.')
        if not all(abs(one) <= sys.float_info.max for one in vector):
            raise InvalidInput("Both numbers of the vector must be finite, as 64-bit floating-point numbers.")
        return vector

    def predict(self, prepared: list[float] | Array) -> dict[str, Any]:
        """The sum of the two numbers, as the network sees it."""
        sums = self._network.predict(np.array([prepared], dtype=np.float64))
        return {"result": sums.astype(np.float32) if isinstance(prepared, np.ndarray) else float(sums[0])}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"

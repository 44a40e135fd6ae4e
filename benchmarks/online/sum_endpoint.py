"""The sum of two numbers as an endpoint of ours."""

from typing import Any

from online_worker.endpoint import Endpoint, TensorSpec


class Sum(Endpoint):
    """Adds two numbers: a JSON object's ``a`` and ``b``, or two tensors of these names."""

    inputs = (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "FP64", (-1,)))
    outputs = (TensorSpec("result", "FP64", (-1,)),)

    def predict(self, prepared: dict[str, Any]) -> dict[str, Any]:
        """Give the sum."""
        return {"result": prepared["a"] + prepared["b"]}

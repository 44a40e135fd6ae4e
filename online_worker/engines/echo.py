"""Answers each call with its own input: for trying out a connection, and for showing how the load is spread."""

from collections.abc import Sequence

from contracts.inference import Tensor, TensorSpec
from contracts.worker_protocol import Call, Failure, Result
from online_worker.engines.base import ModelSource
from online_worker.engines.failures import failure_of
from online_worker.engines.tensors import plain


class EchoModel:
    """One generation; nothing is in memory."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    version: str | None = None

    def infer(self, calls: Sequence[Call], *, together: bool) -> list[Result | Failure]:  # noqa: ARG002 - the same here
        """Each call's input."""
        return [_echo(call) for call in calls]

    def close(self) -> None:
        """Nothing to let go of."""


class EchoEngine:
    """Makes models that echo."""

    def load(self, source: ModelSource) -> EchoModel:  # noqa: ARG002 - whatever the source, the answer is the input
        """Make one."""
        return EchoModel()


def _echo(call: Call) -> Result | Failure:
    try:
        return Result(call.id, plain(call.document), _wanted(call), 0.0)
    except RecursionError as error:  # so deep that the gateway could not read the answer
        return failure_of(call.id, error)


def _wanted(call: Call) -> list[Tensor] | None:
    if call.tensors is None or not call.outputs:
        return call.tensors
    return [tensor for tensor in call.tensors if tensor.name in call.outputs]

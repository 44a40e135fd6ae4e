"""The engine ``onnx``: serves any uploaded model with onnxruntime.

Inputs and outputs are those that the model declares. A document call gives ``{"values": …}`` for the first input, or
``{"inputs": {name: …}}``, and is answered with ``{"values": the first output, "outputs": {name: …}}``.
"""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from contracts.inference import BYTES, InvalidInput, Tensor
from contracts.worker_protocol import Call, Failure, Result
from online_worker.engines.base import ModelSource
from online_worker.engines.failures import failure_of
from online_worker.engines.onnx_documents import feed_from
from online_worker.engines.onnx_safety import ModelRefused, require_safe
from online_worker.engines.onnx_session import (
    BAD_INPUT,
    RUN_FAILURES,
    Port,
    Session,
    input_ports,
    open_session,
    output_ports,
    reason,
    served_by,
)
from online_worker.engines.tensors import DTYPES, Array, check, plain, to_array, to_tensor
from service_kit.logging import get_logger

log = get_logger(__name__)

_THREADS = "THREADS"
"""Key of the endpoint's entry: threads on which one call runs. One, unless it says more: workers share the cores."""
_MOST_THREADS = 256

Feed = dict[str, Array]


class OnnxEngine:
    """Opens uploaded models on one kind of device."""

    def __init__(self, provider: str = "auto") -> None:
        self._provider = provider
        """``cpu``, ``cuda``, or ``auto``: CUDA where onnxruntime has it."""

    def load(self, source: ModelSource) -> "OnnxModel":
        """Check, open and warm the model.

        Raises
        ------
        ModelRefused
            There is none, it is not safe, onnxruntime cannot run it, or its entry asks for what is not there.
        """
        if source.content is None:
            raise ModelRefused(f"The endpoint {source.endpoint!r} has no model yet: upload one, or set CONTENT.")
        require_safe(source.content)
        threads = _threads(source.config.get("entry") or {})
        model = OnnxModel(open_session(source.content, self._provider, threads))
        log.info("onnx_model_opened", endpoint=source.endpoint, served_by=model.version, threads=threads)
        try:
            model.warm_up()
        except (InvalidInput, *RUN_FAILURES) as error:
            # Zeros are made up: that they are refused says nothing of the calls that will come.
            log.info("onnx_model_not_warmed", endpoint=source.endpoint, reason=str(error))
        return model


def _threads(entry: Mapping[str, Any]) -> int:
    threads = entry.get(_THREADS, 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= _MOST_THREADS:
        raise ModelRefused(f"{_THREADS} must be a whole number from 1 to {_MOST_THREADS}, not {threads!r}.")
    return threads


class _Prepared(NamedTuple):
    """One call, ready to run; ``position`` is its place among the calls that came together."""

    position: int
    call: Call
    names: list[str]
    feed: Feed
    rows: int


class OnnxModel:
    """One model in onnxruntime."""

    def __init__(self, session: Session) -> None:
        self._session: Session | None = session
        inputs, outputs = input_ports(session), output_ports(session)
        self.inputs = tuple(port.spec for port in inputs)
        self.outputs = tuple(port.spec for port in outputs)
        self.version: str | None = served_by(session)
        self._output_names = [port.spec.name for port in outputs]
        self._tensor_names = [port.spec.name for port in outputs if port.is_tensor]
        self._has_rows = _has_rows(inputs, outputs)

    def close(self) -> None:
        """Let go of onnxruntime's memory."""
        self._session = None

    def warm_up(self) -> None:
        """Run once on zeros, one for each length that may be any.

        Raises
        ------
        InvalidInput, or one of RUN_FAILURES
            The model does not take them.
        """
        feed: Feed = {}
        for spec in self.inputs:
            shape = [1 if length == -1 else length for length in spec.shape]
            feed[spec.name] = (
                np.full(shape, "", object) if spec.datatype == BYTES else np.zeros(shape, DTYPES[spec.datatype])
            )
        self._run(self._output_names, feed)

    def infer(self, calls: Sequence[Call], *, together: bool) -> list[Result | Failure]:
        """Answer each call; several together in one run where the model takes any number of rows."""
        if together and len(calls) > 1 and self._has_rows:
            return self._together(calls)
        return [self._alone(call) for call in calls]

    def _alone(self, call: Call) -> Result | Failure:
        try:
            names, feed = self._names(call), self._feed(call)
            begun = perf_counter()
            values = self._run(names, feed)
            return _result(call, names, values, perf_counter() - begun)
        except (InvalidInput, *RUN_FAILURES) as error:
            return failure_of(call.id, error)

    def _together(self, calls: Sequence[Call]) -> list[Result | Failure]:
        answers: dict[int, Result | Failure] = {}
        groups: dict[Any, list[_Prepared]] = {}
        for position, call in enumerate(calls):
            try:
                names, feed = self._names(call), self._feed(call)
            except (InvalidInput, *RUN_FAILURES) as error:
                answers[position] = failure_of(call.id, error)
                continue
            lengths = {len(array) for array in feed.values()}
            key = (*names, *(array.shape[1:] for array in feed.values())) if len(lengths) == 1 else position
            groups.setdefault(key, []).append(_Prepared(position, call, names, feed, max(lengths)))
        for group in groups.values():
            found = self._joined(group) or [self._alone(one.call) for one in group]
            answers.update(zip((one.position for one in group), found, strict=True))
        return [answers[position] for position in range(len(calls))]

    def _joined(self, group: Sequence[_Prepared]) -> list[Result | Failure] | None:
        """The answers from one run on all rows; None where they must run one by one.

        So they must where the run fails, since one of them may be the reason, and where the outputs have other rows.
        """
        if len(group) == 1:
            return None
        names = group[0].names
        rows = sum(one.rows for one in group)
        try:
            feed = {name: np.concatenate([one.feed[name] for one in group]) for name in group[0].feed}
            begun = perf_counter()
            values = self._run(names, feed)
        except (InvalidInput, *RUN_FAILURES):
            return None
        seconds = perf_counter() - begun
        if any(len(value) != rows for value in values):
            return None
        answers: list[Result | Failure] = []
        start = 0
        for one in group:
            answers.append(_result(one.call, names, [value[start : start + one.rows] for value in values], seconds))
            start += one.rows
        return answers

    def _names(self, call: Call) -> list[str]:
        """The outputs that the call wants."""
        there = self._output_names if call.tensors is None else self._tensor_names
        if not call.outputs and there:
            return there
        for name in call.outputs:
            if name not in self._output_names:
                raise InvalidInput(f"The model has no output {name!r}; there are {self._output_names}.")
        if not there or not set(call.outputs) <= set(there):
            raise InvalidInput(
                f"Not all outputs are tensors. Of {self._output_names}, tensors are {self._tensor_names}; "
                "send a JSON document to get the others."
            )
        return call.outputs

    def _feed(self, call: Call) -> Feed:
        if call.tensors is None:
            return feed_from(call.document or {}, self.inputs)
        check(call.tensors, self.inputs)
        return {tensor.name: _as_input(tensor) for tensor in call.tensors}

    def _run(self, names: list[str], feed: Feed) -> list[Any]:
        if self._session is None:
            raise RuntimeError("The model is closed.")
        try:
            return self._session.run(names, feed)
        except BAD_INPUT as error:
            raise InvalidInput(f"The model cannot take this input: {reason(error)}") from error


def _has_rows(inputs: Sequence[Port], outputs: Sequence[Port]) -> bool:
    """Whether calls can be joined along the first dimension, as far as the model declares it.

    It must take any length everywhere, and inputs that name it must agree in the name. Outputs need not: exporters give
    each dimension a name of its own. What counts is how many rows come out. That rows do not change each other is for
    whoever asks for batches to know.
    """
    names = {port.rows for port in inputs if isinstance(port.rows, str)}
    return bool(inputs) and len(names) <= 1 and all(port.may_have_rows for port in (*inputs, *outputs))


def _as_input(tensor: Tensor) -> Array:
    array = to_array(tensor)
    if tensor.datatype != BYTES:
        return array
    try:
        strings = [element.decode() for element in array.flat]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Tensor {tensor.name!r} holds an element that is no UTF-8 text.") from error
    decoded = np.empty(len(strings), object)
    decoded[:] = strings
    return decoded.reshape(array.shape)


def _result(call: Call, names: Sequence[str], values: Sequence[Any], seconds: float) -> Result:
    if call.tensors is not None:
        return Result(
            call.id, None, [to_tensor(name, value) for name, value in zip(names, values, strict=True)], seconds
        )
    outputs = {name: plain(value) for name, value in zip(names, values, strict=True)}
    return Result(call.id, {"values": outputs[names[0]], "outputs": outputs}, None, seconds)

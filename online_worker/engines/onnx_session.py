"""Opens a model with onnxruntime: on which device, on how many threads, and what it says of its inputs and outputs."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# Official builds from 1.29 on report their use to Microsoft unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from contracts.inference import BYTES, TensorSpec
from online_worker.engines.onnx_safety import ModelRefused

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_OFFERED: Mapping[str, Sequence[str]] = {"auto": (CUDA, CPU), "cpu": (CPU,), "cuda": (CUDA, CPU)}
_SHOWN = {CUDA: "cuda", CPU: "cpu"}
_ERRORS_ONLY, _FATAL_ONLY = 3, 4

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}
"""The Open Inference Protocol's names of onnxruntime's types."""
BAD_INPUT = (errors.InvalidArgument,)
"""What a run raises where the numbers do not fit the model: a shape that it cannot take, an index out of range."""
RUN_FAILURES = (
    errors.EPFail,
    errors.EngineError,
    errors.Fail,
    errors.InvalidGraph,
    errors.NotImplemented,
    errors.RuntimeException,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
_LOAD_FAILURES = (*BAD_INPUT, *RUN_FAILURES, errors.InvalidProtobuf, errors.NoModel, errors.NotFound)
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ")
_LONGEST_MESSAGE = 500


class Session(Protocol):
    """What is used of onnxruntime's session; it has no types of its own."""

    def run(self, output_names: Sequence[str], input_feed: Mapping[str, Any]) -> list[Any]:
        """The values of these outputs."""
        ...

    def get_providers(self) -> list[str]:
        """The devices that it runs on, the first one preferred."""
        ...

    def get_inputs(self) -> Sequence[Any]:
        """Name, type and shape of each input."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Name, type and shape of each output."""
        ...


class Port(NamedTuple):
    """One input or output as the model declares it."""

    spec: TensorSpec
    """Of an output that is no tensor, the datatype is onnxruntime's own name of its type."""
    rows: str | int | None
    """Its first dimension: a length, the symbol that stands for any, or None for any without a name or where there is
    no dimension."""

    @property
    def is_tensor(self) -> bool:
        """Whether it is one; else a sequence or a map."""
        return self.spec.datatype in _TENSOR_DATATYPES

    @property
    def may_have_rows(self) -> bool:
        """Whether its first dimension may have any length."""
        return self.spec.shape[:1] == (-1,) if self.is_tensor else self.spec.datatype.startswith("seq(map(")


_TENSOR_DATATYPES = frozenset(DATATYPES.values())


def open_session(path: Path, provider: str, threads: int) -> Session:
    """The model of a file that :func:`online_worker.engines.onnx_safety.require_safe` has passed.

    Raises
    ------
    ModelRefused
        onnxruntime cannot load it, or CUDA was asked for and is not there.
    """
    available = onnxruntime.get_available_providers()
    if provider == "cuda" and CUDA not in available:
        raise ModelRefused(
            f"This worker must run models with CUDA, and its onnxruntime {onnxruntime.__version__} has no CUDA. "
            "Install onnxruntime-gpu there instead of onnxruntime, or set the provider to cpu or auto."
        )
    offered = [name for name in _OFFERED[provider] if name in available]
    try:
        session: Session = onnxruntime.InferenceSession(str(path), _options(threads), providers=offered)
    except _LOAD_FAILURES as error:
        raise ModelRefused(f"onnxruntime cannot load the model: {reason(error, path)}") from error
    if provider == "cuda" and CUDA not in session.get_providers():
        raise ModelRefused(
            "This worker must run models with CUDA, and CUDA did not start: see that the worker is given a card, "
            f"and that driver, CUDA and cuDNN are those that onnxruntime {onnxruntime.__version__} needs."
        )
    return session


def _options(threads: int) -> onnxruntime.SessionOptions:
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY  # whatever fails is raised too, and told by the worker
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from the other workers of this machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Never its own format, which it takes for granted by a file's name and mark: the file was checked as ONNX.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def served_by(session: Session) -> str:
    """Version and device, such as ``onnxruntime 1.31.1 on cpu``."""
    name = session.get_providers()[0]
    return f"onnxruntime {onnxruntime.__version__} on {_SHOWN.get(name, name)}"


def input_ports(session: Session) -> tuple[Port, ...]:
    """The inputs that a call must give.

    Raises
    ------
    ModelRefused
        One is of a type that no client can send.
    """
    return tuple(_port("input", declared) for declared in session.get_inputs())


def output_ports(session: Session) -> tuple[Port, ...]:
    """The outputs; sequences and maps among them.

    Raises
    ------
    ModelRefused
        One is of a type that no client can be given.
    """
    return tuple(_port("output", declared) for declared in session.get_outputs())


def _port(kind: str, declared: Any) -> Port:
    datatype = DATATYPES.get(declared.type)
    if datatype is None:
        if kind == "output" and declared.type.startswith(("seq(", "map(", "optional(")):
            return Port(TensorSpec(declared.name, declared.type, ()), None)
        raise ModelRefused(
            f"The {kind} {declared.name!r} is a {declared.type}, which cannot be sent; "
            f"there are {', '.join(DATATYPES)}. Convert it inside the model, with Cast."
        )
    shape = tuple(length if isinstance(length, int) and length >= 0 else -1 for length in declared.shape)
    return Port(TensorSpec(declared.name, datatype, shape), declared.shape[0] if declared.shape else None)


def reason(error: BaseException, path: Path | None = None) -> str:
    """The message of onnxruntime's error in one short line, without this machine's path of the model."""
    text = " ".join(_PREFIX.sub("", str(error)).split())
    if path is not None:
        text = text.replace(str(path), "the file")
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"

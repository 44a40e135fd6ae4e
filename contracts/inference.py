"""The words of the online path: calls and results free of any dialect, tensors, generations, and what may go wrong.

A call carries either a *document* (a JSON object) or *tensors* (named arrays), and its result
carries the same kind. The datatype names and the layout of a tensor's bytes are those of the Open Inference Protocol v2
and its binary tensor extension: row-major, little-endian, each BYTES element behind its length as an unsigned 32-bit
number.

    PlatformError
    ├── InvalidRequest
    │   └── InvalidInput          the endpoint cannot take this input; the caller must change it
    ├── NotFound
    │   └── UnknownEndpoint
    ├── Unavailable
    │   ├── EndpointNotReady      no worker of it is there, or it has no model yet
    │   └── QueueFull             its queue is full: come back after ``retry_after`` seconds
    ├── DeadlineExceeded          the call's time was up, in the queue or at the worker
    ├── WorkerLost                its worker died after it had begun
    ├── ModelFailed               the endpoint's code raised; ``trace`` has the stack
    └── SwapFailed                a new generation was not accepted; ``report`` says what each worker met
"""

from struct import calcsize
from typing import Any

import msgspec

from contracts.errors import InvalidRequest, NotFound, PlatformError, Unavailable

ITEM_FORMATS = {
    "BOOL": "<?",
    "UINT8": "<B",
    "UINT16": "<H",
    "UINT32": "<I",
    "UINT64": "<Q",
    "INT8": "<b",
    "INT16": "<h",
    "INT32": "<i",
    "INT64": "<q",
    "FP16": "<e",
    "FP32": "<f",
    "FP64": "<d",
}
"""How one element lies in a tensor's bytes, by datatype, in the words of :mod:`struct` and numpy; BYTES has none."""
ITEM_BYTES = {datatype: calcsize(format_) for datatype, format_ in ITEM_FORMATS.items()}
"""Bytes of one element, by datatype."""
BYTES = "BYTES"
LENGTH_BYTES = 4
"""Before each element of BYTES."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises where bytes are not what they should be: it leaves wrong UTF-8 and deep brackets to Python."""

ENDPOINT_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
MODELHOST_POOL = "modelhost"
"""The pool whose workers serve every uploaded ONNX model."""


class TensorSpec(msgspec.Struct, frozen=True):
    """What an endpoint says of one of its inputs or outputs; -1 stands for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Tensor(msgspec.Struct, array_like=True):
    """One named array; ``data`` as the module says."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes


class InferCall(msgspec.Struct):
    """One call as a dialect hands it to the data plane; exactly one of ``document`` and ``tensors`` is there."""

    endpoint: str
    document: dict[str, Any] | None = None
    tensors: list[Tensor] | None = None
    outputs: list[str] = []
    """Names of the wanted output tensors; empty: all."""
    generation: int | None = None
    """The one generation that may answer; None: the current one."""
    budget_seconds: float | None = None
    """Time until it must be answered; None: the endpoint's own."""


class InferResult(msgspec.Struct):
    """The answer to one call, of exactly one generation; exactly one of ``document`` and ``tensors`` is there."""

    generation: int
    label: str
    """The name that the generation was given when it was installed; '' for none."""
    worker_id: str
    worker_version: str | None
    document: Any = None
    tensors: list[Tensor] | None = None
    inference_seconds: float = 0.0
    """Spent in the endpoint's code at the worker."""


class WorkerOutcome(msgspec.Struct):
    """What one worker made of a new generation."""

    worker_id: str
    ok: bool
    message: str = ""
    trace: str = ""


class SwapReport(msgspec.Struct):
    """How the installation of a generation ended."""

    endpoint: str
    generation: int
    accepted: bool
    workers: list[WorkerOutcome]
    message: str = "OK"


class InvalidInput(InvalidRequest):
    """The endpoint cannot take this input."""

    code = "invalid_input"

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class UnknownEndpoint(NotFound):
    """No endpoint has this name."""

    code = "unknown_endpoint"


class EndpointNotReady(Unavailable):
    """No worker can answer for the endpoint now."""

    code = "endpoint_not_ready"


class QueueFull(Unavailable):
    """The endpoint's queue holds as many calls as it may."""

    code = "queue_full"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Whole seconds until there should be room."""


class DeadlineExceeded(PlatformError):
    """The call was not answered in its time."""

    code = "deadline_exceeded"


class WorkerLost(PlatformError):
    """The worker died, or fell silent, with the call in its hands."""

    code = "worker_lost"


class ModelFailed(PlatformError):
    """The endpoint's code raised."""

    code = "model_failed"

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace
        """The worker's stack trace: for whoever runs the endpoint."""


class SwapFailed(PlatformError):
    """A new generation was refused; the one before goes on serving."""

    code = "swap_failed"

    def __init__(self, report: SwapReport) -> None:
        super().__init__(report.message)
        self.report = report

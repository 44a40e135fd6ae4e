"""Requests and answers of the Open Inference Protocol: a JSON object, and behind it the tensors sent in binary.

The protocol is kserve/open-inference-protocol's ``inference_rest.md``; the binary tensors are an extension of the
Triton server, its ``extension_binary_data.md``: ``Inference-Header-Content-Length`` says where the JSON ends, and 0
stands for the bytes of a model's only input without any JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from contracts.inference import BYTES, ITEM_BYTES, InferResult, InvalidInput, Tensor, TensorSpec
from online_gateway.dialects.tensor_json import array_of, bytes_of, check_bytes, check_shape, values_of

HEADER_LENGTH = b"inference-header-content-length"

_Length = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
_NOTHING = msgspec.Raw(b"")
_MOST_DIGITS = 18
_SHARED_MEMORY = "shared_memory_region"


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[_Length]
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = _NOTHING


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Document(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str = ""
    parameters: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Document).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class InferRequest:
    """What a client asks."""

    tensors: list[Tensor]
    id: str = ""
    outputs: Mapping[str, bool] = field(default_factory=dict)
    """The wanted outputs, and whether each is wanted in binary; empty: all."""
    is_binary: bool = False
    """Whether outputs are wanted in binary where none are named."""
    budget_seconds: float | None = None


def read_request(body: bytes, header_length: bytes | None, inputs: Callable[[], Sequence[TensorSpec]]) -> InferRequest:
    """The request in a body; ``inputs`` tells those of the model, which a body of a bare tensor needs.

    Raises
    ------
    InvalidInput
        It is none; the message says what is wrong.
    """
    if header_length is None:
        return _read_document(memoryview(body), memoryview(b""))
    if not header_length.isdigit() or len(header_length) > _MOST_DIGITS or int(header_length) > len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {header_length[:20].decode('latin-1')!r}; it must be the bytes of the "
            f"JSON at the beginning of the body, which has {len(body)}."
        )
    if int(header_length) == 0:
        return InferRequest([_bare_tensor(body, inputs())], is_binary=True)
    view = memoryview(body)
    return _read_document(view[: int(header_length)], view[int(header_length) :])


def _read_document(text: memoryview, binary: memoryview) -> InferRequest:
    try:
        document = _decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"The request is no inference request: {error}.") from error
    except RecursionError as error:
        raise InvalidInput("The request is no inference request: its brackets are too deep.") from error
    parameters = document.parameters
    if parameters.get("sequence_id"):
        raise InvalidInput("Sequences are not supported here: leave 'sequence_id' out.")
    is_binary = _flag(parameters, "binary_data_output", default=False)
    return InferRequest(
        tensors=_read_tensors(document.inputs, binary),
        id=document.id,
        outputs={output.name: _wants_binary(output, is_binary) for output in document.outputs or ()},
        is_binary=is_binary,
        budget_seconds=_budget(parameters),
    )


def _read_tensors(inputs: Sequence[_Input], binary: memoryview) -> list[Tensor]:
    tensors, start = [], 0
    for given in inputs:
        elements = check_shape(given.name, given.datatype, given.shape)
        if _SHARED_MEMORY in given.parameters:
            raise InvalidInput(f"{given.name!r}: shared memory is not supported; send the data.")
        if "binary_data_size" in given.parameters:
            data = _take(given, binary[start:])
            start += len(data)
            check_bytes(given.name, given.datatype, elements, data)
        else:
            data = _from_json(given, elements)
        tensors.append(Tensor(given.name, given.datatype, given.shape, data))
    if start != len(binary):
        raise InvalidInput(f"Behind the JSON stand {len(binary)} bytes; the inputs' 'binary_data_size' make {start}.")
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise InvalidInput(f"An input is there twice: {', '.join(names)}.")
    return tensors


def _take(given: _Input, binary: memoryview) -> bytes:
    size = given.parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise InvalidInput(f"{given.name!r}: 'binary_data_size' must be a number of bytes.")
    if size > len(binary):
        raise InvalidInput(
            f"{given.name!r} should have {size} bytes behind the JSON; {len(binary)} are left. Does "
            "Inference-Header-Content-Length say where the JSON ends?"
        )
    return bytes(binary[:size])


def _from_json(given: _Input, elements: int) -> bytes:
    if given.data is _NOTHING:
        raise InvalidInput(f"{given.name!r} has neither 'data' nor 'binary_data_size'.")
    array = array_of(given.name, given.datatype, memoryview(given.data))
    is_nested = array.ndim > 1 and array.size > 0
    if array.size != elements or (is_nested and list(array.shape) != given.shape):
        raise InvalidInput(f"{given.name!r} has data of shape {list(array.shape)}; it says {given.shape}.")
    return bytes_of(array)


def _bare_tensor(body: bytes, inputs: Sequence[TensorSpec]) -> Tensor:
    if len(inputs) != 1:
        raise InvalidInput(f"The model takes {len(inputs)} inputs: say in JSON which the bytes are.")
    spec = inputs[0]
    check_shape(spec.name, spec.datatype, ())
    if spec.datatype == BYTES:
        element = len(body).to_bytes(4, "little") + body
        return Tensor(spec.name, BYTES, [1] * len(spec.shape), element)
    if spec.shape.count(-1) > 1:
        raise InvalidInput(f"{spec.name!r} has the shape {list(spec.shape)}: say in JSON which the bytes have.")
    row = ITEM_BYTES[spec.datatype]
    for length in spec.shape:
        row *= 1 if length == -1 else length
    shape = [len(body) // row if length == -1 and row else length for length in spec.shape]
    check_bytes(spec.name, spec.datatype, check_shape(spec.name, spec.datatype, shape), body)
    return Tensor(spec.name, spec.datatype, shape, body)


def _wants_binary(output: _Output, default: bool) -> bool:
    if output.parameters.get("classification"):
        raise InvalidInput(
            f"{output.name!r}: the classification extension is not supported; ask for the tensor itself."
        )
    if _SHARED_MEMORY in output.parameters:
        raise InvalidInput(f"{output.name!r}: shared memory is not supported; take the data from the answer.")
    return _flag(output.parameters, "binary_data", default=default)


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"The parameter {name!r} must be true or false.")
    return value


def _budget(parameters: Mapping[str, Any]) -> float | None:
    """The seconds of ``timeout``, which is in microseconds; 0 stands for the endpoint's own."""
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise InvalidInput("The parameter 'timeout' must be a number of microseconds.")
    return timeout / 1e6 if timeout else None


def write_answer(model: str, request: InferRequest, result: InferResult) -> tuple[bytes, int | None]:
    """The answer's body, and the bytes of the JSON at its beginning where tensors follow in binary.

    Raises
    ------
    InvalidInput
        An output was asked for that the model has not, or that cannot be written in JSON.
    """
    tensors = _wanted(request.outputs, result.tensors or [])
    outputs, binary = [], []
    for tensor in tensors:
        written: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if request.outputs.get(tensor.name, request.is_binary):
            written["parameters"] = {"binary_data_size": len(tensor.data)}
            binary.append(tensor.data)
        else:
            written["data"] = values_of(tensor.name, tensor.datatype, tensor.data)
        outputs.append(written)
    answer: dict[str, Any] = {"model_name": model, "model_version": str(result.generation)}
    if request.id:
        answer["id"] = request.id
    answer["outputs"] = outputs
    text = _encode(answer)
    return (b"".join([text, *binary]), len(text)) if binary else (text, None)


def _wanted(names: Mapping[str, bool], tensors: list[Tensor]) -> list[Tensor]:
    if not names:
        return tensors
    there = {tensor.name: tensor for tensor in tensors}
    missing = [name for name in names if name not in there]
    if missing:
        raise InvalidInput(f"The model has no output {missing[0]!r}; there are {', '.join(there) or 'none'}.")
    return [there[name] for name in names]

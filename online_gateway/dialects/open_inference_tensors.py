"""Requests and answers of the Open Inference Protocol: a JSON object, and behind it the tensors sent in binary.

The protocol is kserve/open-inference-protocol's ``inference_rest.md``; the binary tensors are an extension of the
Triton server, its ``extension_binary_data.md``: ``Inference-Header-Content-Length`` says where the JSON ends, and 0
stands for the bytes of a model's only input without any JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from contracts.inference import (
    BYTES,
    ITEM_BYTES,
    LENGTH_BYTES,
    UNREADABLE,
    InferResult,
    InvalidInput,
    Tensor,
    TensorSpec,
)
from online_gateway.dialects.tensor_json import array_of, bytes_of, check_bytes, check_shape, few_bytes, values_of

HEADER_LENGTH = b"inference-header-content-length"

_Length = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
_NOTHING = msgspec.Raw(b"")
_MOST_DIGITS = 18


class _InputParameters(msgspec.Struct, frozen=True):
    binary_data_size: _Length | None = None
    shared_memory_region: Any = None


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[_Length]
    parameters: _InputParameters = _InputParameters()
    data: msgspec.Raw = _NOTHING


class _OutputParameters(msgspec.Struct, frozen=True):
    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class _Output(msgspec.Struct):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _Parameters(msgspec.Struct, frozen=True):
    binary_data_output: bool = False
    timeout: _Length = 0
    """Microseconds; 0 stands for the endpoint's own deadline."""
    sequence_id: Any = None


class _Document(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str = ""
    parameters: _Parameters = _Parameters()


_decode = msgspec.json.Decoder(_Document).decode
_encode = msgspec.json.Encoder().encode


class InferRequest(msgspec.Struct, frozen=True):
    """What a client asks."""

    tensors: list[Tensor]
    id: str = ""
    outputs: Mapping[str, bool] = {}
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
    except RecursionError as error:
        raise InvalidInput("The request is no inference request: its brackets are too deep.") from error
    except UNREADABLE as error:
        raise InvalidInput(f"The request is no inference request: {error}.") from error
    asked = document.parameters
    if asked.sequence_id:
        raise InvalidInput("Sequences are not supported here: leave 'sequence_id' out.")
    return InferRequest(
        tensors=_read_tensors(document.inputs, binary),
        id=document.id,
        outputs={one.name: _wants_binary(one, asked.binary_data_output) for one in document.outputs or ()},
        is_binary=asked.binary_data_output,
        budget_seconds=asked.timeout / 1e6 if asked.timeout else None,
    )


def _read_tensors(inputs: Sequence[_Input], binary: memoryview) -> list[Tensor]:
    tensors, start = [], 0
    for given in inputs:
        elements = check_shape(given.name, given.datatype, given.shape)
        if given.parameters.shared_memory_region is not None:
            raise InvalidInput(f"{given.name!r}: shared memory is not supported; send the data.")
        size = given.parameters.binary_data_size
        if size is not None:
            data = _take(given, size, binary[start:])
            start += len(data)
            check_bytes(given.name, given.datatype, elements, data)
        else:
            data = _from_json(given, elements)
        tensors.append(Tensor(given.name, given.datatype, given.shape, data))
    if start != len(binary):
        raise InvalidInput(f"Behind the JSON stand {len(binary)} bytes; the inputs' 'binary_data_size' make {start}.")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise InvalidInput(f"An input is there twice: {', '.join(tensor.name for tensor in tensors)}.")
    return tensors


def _take(given: _Input, size: int, binary: memoryview) -> bytes:
    if size > len(binary):
        raise InvalidInput(
            f"{given.name!r} should have {size} bytes behind the JSON; {len(binary)} are left. Does "
            "Inference-Header-Content-Length say where the JSON ends?"
        )
    return bytes(binary[:size])


def _from_json(given: _Input, elements: int) -> bytes:
    if given.data is _NOTHING:
        raise InvalidInput(f"{given.name!r} has neither 'data' nor 'binary_data_size'.")
    few = few_bytes(given.datatype, elements, given.data)
    if few is not None:
        return few
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
        element = len(body).to_bytes(LENGTH_BYTES, "little") + body
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
    asked = output.parameters
    if asked.classification:
        raise InvalidInput(
            f"{output.name!r}: the classification extension is not supported; ask for the tensor itself."
        )
    if asked.shared_memory_region is not None:
        raise InvalidInput(f"{output.name!r}: shared memory is not supported; take the data from the answer.")
    return default if asked.binary_data is None else asked.binary_data


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

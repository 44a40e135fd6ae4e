"""Tensors of the wire and numpy arrays, each made from the other; and answers made of JSON values alone."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.inference import BYTES, ITEM_FORMATS, LENGTH_BYTES, InvalidInput, Tensor, TensorSpec

Array = NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {name: np.dtype(format_) for name, format_ in ITEM_FORMATS.items()}
"""How the elements lie in a tensor's bytes, by datatype; BYTES has no fixed size."""
_DATATYPES = {(dtype.kind, dtype.itemsize): name for name, dtype in DTYPES.items()}
_SCALARS = frozenset({str, int, float, bool, type(None)})


def to_array(tensor: Tensor) -> Array:
    """The tensor as an array; a read-only view of its bytes, except BYTES: a new array of ``bytes`` objects.

    Raises
    ------
    InvalidInput
        Its datatype is unknown, or its bytes do not fit its datatype and shape.
    """
    if any(length < 0 for length in tensor.shape):
        raise InvalidInput(f"Tensor '{tensor.name}' has the shape {tensor.shape}; no length may be negative.")
    if tensor.datatype == BYTES:
        return _shaped(_elements(tensor), tensor)
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        known = ", ".join([*DTYPES, BYTES])
        raise InvalidInput(f"Tensor '{tensor.name}' has the datatype '{tensor.datatype}'; known are {known}.")
    expected = prod(tensor.shape) * dtype.itemsize
    if len(tensor.data) != expected:
        raise InvalidInput(
            f"Tensor '{tensor.name}' has {len(tensor.data)} bytes; "
            f"{tensor.datatype} of shape {tensor.shape} takes {expected}."
        )
    return _shaped(np.frombuffer(tensor.data, dtype), tensor)


def to_tensor(name: str, array: Array) -> Tensor:
    """The array as a tensor; arrays of ``str`` and ``bytes`` become BYTES, in UTF-8.

    Raises
    ------
    TypeError
        No datatype can hold its elements.
    """
    shape = list(array.shape)
    if array.dtype.kind in "OSU":
        return Tensor(name, BYTES, shape, b"".join(_with_length(name, one) for one in array.flat))
    datatype = _DATATYPES.get((array.dtype.kind, array.dtype.itemsize))
    if datatype is None:
        raise TypeError(f"Tensor '{name}' has elements of type {array.dtype}; convert them to one of {list(DTYPES)}.")
    return Tensor(name, datatype, shape, array.astype(DTYPES[datatype], copy=False).tobytes())


def check(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> None:
    """Compare what a call brings with what its endpoint takes.

    Raises
    ------
    InvalidInput
        A tensor is missing, unknown, there twice, or of another datatype or shape.
    """
    given = {tensor.name: tensor for tensor in tensors}
    expected = {spec.name: spec for spec in specs}
    if len(given) != len(tensors):
        raise InvalidInput(f"A tensor is there twice: {', '.join(tensor.name for tensor in tensors)}.")
    if given.keys() != expected.keys():
        raise InvalidInput(_wrong_names(given, expected))
    for name, tensor in given.items():
        spec = expected[name]
        if tensor.datatype != spec.datatype or not _fits(tensor.shape, spec.shape):
            raise InvalidInput(
                f"Tensor '{name}' must be {_of_shape(spec.datatype, spec.shape)}; "
                f"{_of_shape(tensor.datatype, tensor.shape)} was given."
            )


def plain(value: Any) -> Any:
    """A copy of the value made of JSON values alone, out of those and numpy's arrays and numbers.

    Raises
    ------
    TypeError
        It holds something else.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return {_key(key): one if type(one) in _SCALARS else plain(one) for key, one in value.items()}
    if kind is list or kind is tuple:
        return list(value) if _SCALARS.issuperset(map(type, value)) else [plain(one) for one in value]
    return _unusual(value)


def _unusual(value: Any) -> Any:
    """Numpy's values, and subclasses of the plain types."""
    if isinstance(value, np.ndarray):
        is_numbers = (value.dtype.kind, value.dtype.itemsize) in _DATATYPES
        return value.tolist() if is_numbers else plain(value.tolist())
    if isinstance(value, np.generic):
        return _unusual_scalar(value.item(), value)
    if isinstance(value, Mapping):
        return {_key(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    for scalar in (str, int, float):
        if isinstance(value, scalar):
            return scalar(value)
    raise TypeError(f"an answer may hold JSON values and numpy's alone; there is a {type(value).__name__} in it")


def _unusual_scalar(item: Any, value: np.generic) -> Any:
    if type(item) not in _SCALARS:
        raise TypeError(f"an answer may hold JSON values and numpy's numbers; there is a {type(value).__name__} in it")
    return item


def _key(key: Any) -> str:
    """What JSON makes of a key: Python's own encoder takes numbers and truth values too."""
    if type(key) is str:
        return key
    value = plain(key)
    if type(value) not in _SCALARS:
        raise TypeError(f"keys of an answer must be strings; there is a {type(key).__name__}")
    return {None: "null", True: "true", False: "false"}[value] if value is None or type(value) is bool else str(value)


def _shaped(flat: Array, tensor: Tensor) -> Array:
    try:
        return flat.reshape(tensor.shape)
    except ValueError as error:  # too many dimensions, or a length that no array can have beside one of zero
        raise InvalidInput(f"Tensor '{tensor.name}' cannot have the shape {tensor.shape}: {error}.") from error


def _elements(tensor: Tensor) -> Array:
    """The elements of a BYTES tensor, each of which stands behind its length."""
    data, found, start = tensor.data, [], 0
    while start < len(data):
        begin = start + LENGTH_BYTES
        start = begin + int.from_bytes(data[start:begin], "little")
        if begin > len(data) or start > len(data):
            raise InvalidInput(f"Tensor '{tensor.name}' ends within an element; each one stands behind its length.")
        found.append(data[begin:start])
    expected = prod(tensor.shape)
    if len(found) != expected:
        raise InvalidInput(
            f"Tensor '{tensor.name}' has {len(found)} elements; BYTES of shape {tensor.shape} takes {expected}."
        )
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def _with_length(name: str, element: Any) -> bytes:
    data = element.encode() if isinstance(element, str) else element
    if not isinstance(data, bytes):
        raise TypeError(
            f"Tensor '{name}' has an element of type {type(element).__name__}; strings and bytes can be sent."
        )
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(
        want in {-1, length} for length, want in zip(shape, expected, strict=True)
    )


def _of_shape(datatype: str, shape: Sequence[int]) -> str:
    return f"{datatype} of shape {list(shape)}"


def _wrong_names(given: Mapping[str, Tensor], expected: Mapping[str, TensorSpec]) -> str:
    wanted = ", ".join(f"'{spec.name}' ({_of_shape(spec.datatype, spec.shape)})" for spec in expected.values())
    unknown = ", ".join(f"'{name}'" for name in given if name not in expected)
    missing = ", ".join(f"'{name}'" for name in expected if name not in given)
    mistakes = [f"{names} {what}" for names, what in ((missing, "is missing"), (unknown, "is not known")) if names]
    return f"Of the tensors {' and '.join(mistakes)}; the endpoint takes {wanted}."

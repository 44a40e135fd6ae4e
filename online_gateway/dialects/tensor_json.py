"""Arrays written in JSON, and the same as a tensor's bytes (:mod:`contracts.inference` says how those lie).

JSON has no NaN and no infinity: they are written as ``null``, and are not taken.
"""

import re
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from contracts.inference import BYTES, ITEM_BYTES, ITEM_FORMATS, LENGTH_BYTES, UNREADABLE, InvalidInput

DTYPES = {datatype: np.dtype(format_) for datatype, format_ in ITEM_FORMATS.items()}
MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 2**40
_OPENING = re.compile(rb"[\[\s]*")

_KIND: dict[str, tuple[type, str]] = {
    "BOOL": (bool, "true and false"),
    BYTES: (str, "strings"),
    **dict.fromkeys(("FP16", "FP32", "FP64"), (float, "numbers")),
}
_INTEGERS: tuple[type, str] = (int, "whole numbers")

_FEW = 64
"""Elements; for so many the calls into numpy take longer than the work in them."""
_ROWS = {
    datatype: (msgspec.json.Decoder(list[_KIND.get(datatype, _INTEGERS)[0]]).decode, format_[1:])  # type: ignore[misc]
    for datatype, format_ in ITEM_FORMATS.items()
}


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """The number of elements of a tensor that is announced so.

    Raises
    ------
    InvalidInput
        No tensor can be so.
    """
    if datatype not in ITEM_BYTES and datatype != BYTES:
        known = ", ".join([*ITEM_BYTES, BYTES])
        raise InvalidInput(f"{name!r} has the datatype {datatype!r}; there are {known}.")
    if len(shape) > MOST_DIMENSIONS:
        raise InvalidInput(f"{name!r} has {len(shape)} dimensions; {MOST_DIMENSIONS} are the most.")
    elements = room = 1
    for length in shape:
        elements *= length
        room *= length or 1  # a length of zero makes no other one possible
        if length < 0 or room > _MOST_ELEMENTS:
            raise InvalidInput(f"{name!r} cannot have the shape {list(shape)}.")
    return elements


def check_bytes(name: str, datatype: str, elements: int, data: bytes | memoryview) -> None:
    """That these are the bytes of so many elements.

    Raises
    ------
    InvalidInput
        They are not; the message says how many there should be.
    """
    if datatype != BYTES:
        expected = elements * ITEM_BYTES[datatype]
        if len(data) != expected:
            raise InvalidInput(f"{name!r} has {len(data)} bytes of data; {elements} of {datatype} take {expected}.")
        if datatype == "BOOL" and elements and np.frombuffer(data, np.uint8).max() > 1:
            raise InvalidInput(f"{name!r} holds a byte that is neither 0 nor 1; BOOL has no others.")
        return
    found = len(_elements(name, data))
    if found != elements:
        raise InvalidInput(f"{name!r} holds {found} elements; its shape has {elements}.")


def few_bytes(datatype: str, elements: int, raw: bytes | msgspec.Raw) -> bytes | None:
    """The bytes of a tensor of few numbers that a JSON text says in one row.

    None: it is another one, or a wrong one, which :func:`array_of` reads.
    """
    if elements > _FEW or datatype == BYTES:
        return None
    decode, code = _ROWS[datatype]
    try:
        return struct.pack(f"<{elements}{code}", *decode(raw))
    except (*UNREADABLE, struct.error, OverflowError):
        return None


def array_of(name: str, datatype: str, raw: bytes | memoryview) -> np.ndarray[Any, Any]:
    """The array that a JSON text says, as deep as its brackets; BYTES: of ``str`` objects.

    Raises
    ------
    InvalidInput
        It is no array, its rows have different lengths, or an element is not of the datatype.
    """
    opening = _OPENING.match(raw)
    depth = bytes(opening.group()).count(b"[") if opening else 0
    if not 0 < depth <= MOST_DIMENSIONS:
        raise InvalidInput(f"{name!r} must be an array, of at most {MOST_DIMENSIONS} dimensions.")
    kind, words = _KIND.get(datatype, _INTEGERS)
    try:
        rows = _decoder(kind, depth)(raw)
    except UNREADABLE as error:
        raise InvalidInput(f"{name!r} must hold {words}, in rows of one length each: {error}.") from error
    dtype: Any = object if datatype == BYTES else DTYPES[datatype]
    try:
        with np.errstate(over="raise"):
            array = np.array(rows, dtype)
    except (OverflowError, FloatingPointError) as error:
        raise InvalidInput(f"{name!r} holds a number that does not fit into {datatype}.") from error
    except ValueError as error:
        raise InvalidInput(f"{name!r} must hold rows of one length each.") from error
    if array.ndim != depth:
        raise InvalidInput(f"{name!r} must hold rows of one length each.")
    return array


@cache
def _decoder(kind: type, depth: int) -> Callable[[bytes | memoryview], Any]:
    shape: Any = kind
    for _ in range(depth):
        shape = list[shape]
    return msgspec.json.Decoder(shape).decode


def bytes_of(array: np.ndarray[Any, Any]) -> bytes:
    """A tensor's bytes; of an array of objects, which are ``str``: those of BYTES."""
    if array.dtype != object:
        return array.tobytes()
    pieces = []
    for text in array.ravel():
        element = text.encode()
        pieces += [len(element).to_bytes(LENGTH_BYTES, "little"), element]
    return b"".join(pieces)


def values_of(name: str, datatype: str, data: bytes) -> list[Any]:
    """The elements of a tensor, in one row, as JSON has them; floating-point ones that JSON has not: None.

    Raises
    ------
    InvalidInput
        They are BYTES that are not UTF-8: they can only be had in binary.
    """
    if datatype != BYTES:
        values: list[Any] = np.frombuffer(data, DTYPES[datatype]).tolist()
        return values
    try:
        return [str(element, "utf-8") for element in _elements(name, data)]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name!r} holds bytes that are not UTF-8; ask for it in binary.") from error


def _elements(name: str, data: bytes | memoryview) -> list[memoryview]:
    view, start, found = memoryview(data), 0, []
    while start < len(view):
        end = start + LENGTH_BYTES
        length = int.from_bytes(view[start:end], "little")
        start = end + length
        if end > len(view) or start > len(view):
            raise InvalidInput(f"{name!r} ends amid an element; each stands behind its length in {LENGTH_BYTES} bytes.")
        found.append(view[end:start])
    return found

"""JSON values to the arrays that a model takes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contracts.inference import BYTES, InvalidInput, TensorSpec
from online_worker.engines.tensors import DTYPES, Array


def feed_from(document: Mapping[str, Any], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The arrays of a document: ``values`` is the first input, ``inputs`` holds inputs by name.

    Raises
    ------
    InvalidInput
        One is missing, unknown, or does not fit its input.
    """
    by_name = document.get("inputs") or {}
    if not isinstance(by_name, dict):
        raise InvalidInput('"inputs" must be an object: the values of each input, by its name.')
    known = {spec.name for spec in specs}
    if unknown := sorted(by_name.keys() - known):
        raise InvalidInput(f"The model has no input {unknown[0]!r}; {_there_are(specs)}.")
    given = dict(by_name)
    if "values" in document and specs:
        given[specs[0].name] = document["values"]
    if missing := [spec.name for spec in specs if spec.name not in given]:
        how = '"values"' if len(specs) == 1 else '"inputs"'
        raise InvalidInput(f"The input {missing[0]!r} is missing in {how}; {_there_are(specs)}.")
    return {spec.name: array_from(given[spec.name], spec) for spec in specs}


def _there_are(specs: Sequence[TensorSpec]) -> str:
    return "there are " + ", ".join(f"{spec.name!r} ({spec.datatype} {list(spec.shape)})" for spec in specs)


def array_from(values: Any, spec: TensorSpec) -> Array:
    """The values as the input's datatype, in its shape; one row may stand alone, and all numbers in a flat list.

    Raises
    ------
    InvalidInput
        They do not fit; the message names the input and what it takes.
    """
    array = _strings(values, spec) if spec.datatype == BYTES else _numbers(values, spec)
    shaped = _shaped(array, spec.shape)
    if shaped is None:
        raise InvalidInput(
            f"The input {spec.name!r} takes the shape {list(spec.shape)}, where -1 is any length; "
            f"the values have the shape {list(array.shape)}."
        )
    return shaped


def _shaped(array: Array, shape: Sequence[int]) -> Array | None:
    if _fits(array.shape, shape):
        return array
    if shape and shape[0] in (-1, 1) and _fits(array.shape, shape[1:]):
        return array[None]
    fixed = math.prod(length for length in shape if length != -1)
    if array.ndim == 1 and array.size and fixed and shape.count(-1) <= 1 and array.size % fixed == 0:
        return array.reshape(tuple(shape)) if -1 in shape or array.size == fixed else None
    return None


def _fits(actual: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(actual) == len(wanted) and all(b in {a, -1} for a, b in zip(actual, wanted, strict=True))


def _strings(values: Any, spec: TensorSpec) -> Array:
    array = np.array(values, dtype=np.object_)
    if not all(isinstance(one, str) for one in array.flat):
        raise InvalidInput(f"The input {spec.name!r} takes strings, in lists of equal lengths.")
    return array


def _numbers(values: Any, spec: TensorSpec) -> Array:
    try:
        array = np.array(values)
    except ValueError as error:
        raise InvalidInput(f"The input {spec.name!r}: the lists inside each other have unequal lengths.") from error
    wanted = DTYPES[spec.datatype]
    if array.size == 0 and array.dtype.kind == "f":  # an empty list says nothing of its type
        return array.astype(wanted)
    if (wanted.kind == "b") != (array.dtype.kind == "b") or array.dtype.kind not in "biuf":
        what = "true and false" if wanted.kind == "b" else "numbers"
        raise InvalidInput(f"The input {spec.name!r} takes {what} ({spec.datatype}) only.")
    if wanted.kind in "iu":
        return _whole(array, wanted, spec)
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if not np.isfinite(cast).all():
        raise InvalidInput(f"The input {spec.name!r} takes {spec.datatype}, and a number is too large for it.")
    return cast


def _whole(array: Array, wanted: np.dtype[Any], spec: TensorSpec) -> Array:
    if array.dtype.kind == "f" and not (array == np.floor(array)).all():
        raise InvalidInput(f"The input {spec.name!r} takes whole numbers ({spec.datatype}) only.")
    limits = np.iinfo(wanted)
    if array.size and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
        raise InvalidInput(f"The input {spec.name!r} takes {spec.datatype}: from {limits.min} to {limits.max}.")
    return array.astype(wanted)

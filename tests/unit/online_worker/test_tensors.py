"""Tensors become arrays and arrays tensors, whatever their datatype and shape; what does not fit is refused."""

import json
import math
from collections import OrderedDict
from contextlib import suppress
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contracts.inference import ITEM_BYTES, InvalidInput, Tensor, TensorSpec
from online_worker.engines.tensors import DTYPES, check, plain, to_array, to_tensor

_SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
_NUMBERS = st.sampled_from(sorted(DTYPES)).flatmap(lambda name: hnp.arrays(DTYPES[name], _SHAPES))
_BYTES = hnp.arrays(np.dtype(object), _SHAPES, elements=st.binary(max_size=9), fill=st.nothing())
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_NUMBERS | _BYTES)
def test_an_array_comes_back_from_its_tensor_as_it_was(array: np.ndarray[Any, Any]) -> None:
    back = to_array(to_tensor("x", array))

    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert [repr(one) for one in back.flat] == [repr(one) for one in array.flat]


@given(_NUMBERS)
def test_neither_byte_order_nor_strides_of_an_array_reach_its_tensor(array: np.ndarray[Any, Any]) -> None:
    swapped = array.astype(array.dtype.newbyteorder(">")).T

    tensor = to_tensor("x", swapped)

    assert tensor == to_tensor("x", np.array(array.T, order="C"))
    assert len(tensor.data) == math.prod(tensor.shape) * ITEM_BYTES[tensor.datatype]


def test_each_datatype_of_the_wire_has_a_layout() -> None:
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == ITEM_BYTES


def test_texts_are_sent_in_utf_8_behind_their_lengths() -> None:
    tensor = to_tensor("names", np.array([["ä", "bc"]]))

    assert tensor == Tensor("names", "BYTES", [1, 2], b"\x02\0\0\0\xc3\xa4\x02\0\0\0bc")


@settings(max_examples=300)
@given(
    datatype=st.sampled_from([*DTYPES, "BYTES", "BF16", ""]),
    shape=st.lists(st.integers(-1, 2**70) | st.integers(0, 3), max_size=70),
    data=st.binary(max_size=24),
)
def test_whatever_a_caller_sends_is_an_array_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    got = tuple(shape)

    with suppress(InvalidInput):
        got = to_array(Tensor("x", datatype, shape, data)).shape

    assert got == tuple(shape)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (Tensor("x", "FP32", [2], b"1234"), "Tensor 'x' has 4 bytes; FP32 of shape [2] takes 8."),
        (Tensor("x", "FP32", [-1], b"1234"), "Tensor 'x' has the shape [-1]; no length may be negative."),
        (Tensor("x", "BYTES", [2], b"\x01\0\0\0a"), "Tensor 'x' has 1 elements; BYTES of shape [2] takes 2."),
        (Tensor("x", "BYTES", [1], b"\x02\0\0\0a"), "Tensor 'x' ends within an element"),
        (Tensor("x", "BYTES", [1], b"\0\0"), "Tensor 'x' ends within an element"),
        (Tensor("x", "BF16", [1], b"\0\0"), "Tensor 'x' has the datatype 'BF16'; known are BOOL, UINT8"),
        (Tensor("x", "FP32", [0, 2**62, 2**62], b""), "Tensor 'x' cannot have the shape"),
    ],
)
def test_a_tensor_whose_bytes_do_not_fit_is_refused_with_a_sentence(tensor: Tensor, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_array(tensor)

    assert refused.value.message.startswith(sentence)


@pytest.mark.parametrize("array", [np.zeros(2, complex), np.array(["2026"], "M8[Y]"), np.array([{}, []], object)])
def test_an_array_of_what_no_datatype_holds_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(TypeError, match="'x'"):
        to_tensor("x", array)


_SPECS = (TensorSpec("image", "UINT8", (-1, 28, 28)), TensorSpec("scale", "FP32", (1,)))
_TAKES = "the endpoint takes 'image' (UINT8 of shape [-1, 28, 28]), 'scale' (FP32 of shape [1])."
_IMAGE = Tensor("image", "UINT8", [3, 28, 28], b"")
_SCALE = Tensor("scale", "FP32", [1], b"")


def test_tensors_that_fit_pass_in_any_order() -> None:
    check([_SCALE, _IMAGE], _SPECS)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (
            [_IMAGE, Tensor("scale", "FP64", [1], b"")],
            "Tensor 'scale' must be FP32 of shape [1]; FP64 of shape [1] was given.",
        ),
        (
            [Tensor("image", "UINT8", [3, 28], b""), _SCALE],
            "Tensor 'image' must be UINT8 of shape [-1, 28, 28]; UINT8 of shape [3, 28] was given.",
        ),
        (
            [Tensor("image", "UINT8", [3, 28, 29], b""), _SCALE],
            "Tensor 'image' must be UINT8 of shape [-1, 28, 28]; UINT8 of shape [3, 28, 29] was given.",
        ),
        (
            [_IMAGE],
            f"Of the tensors 'scale' is missing; {_TAKES}",
        ),
        (
            [_IMAGE, Tensor("scales", "FP32", [1], b"")],
            f"Of the tensors 'scale' is missing and 'scales' is not known; {_TAKES}",
        ),
        ([_IMAGE, _IMAGE, _SCALE], "A tensor is there twice: image, image, scale."),
    ],
)
def test_tensors_that_do_not_fit_are_refused_naming_what_is_expected(tensors: list[Tensor], sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check(tensors, _SPECS)

    assert refused.value.message == sentence


@given(_JSON)
def test_json_values_stay_what_they_are(value: Any) -> None:
    assert plain(value) == value


@given(_JSON)
def test_an_answer_is_copied_so_that_its_maker_may_change_it_afterwards(value: Any) -> None:
    box = {"value": [value]}

    copy = plain(box)
    box["value"].clear()

    assert copy == {"value": [value]}


class _Colour(IntEnum):
    RED = 1


def test_values_of_numpy_and_subclasses_of_plain_types_become_json_values() -> None:
    answer = {
        "array": np.array([[1, 2]], "u1"),
        "objects": np.array(["a", None, 1.5], object),
        "scalar": np.float32(0.5),
        "truth": np.bool_(True),
        "text": np.str_("x"),
        "colour": _Colour.RED,
        "pair": (1, np.int64(2)),
        "ordered": OrderedDict(a=np.array(3)),
        1: "int key",
        None: "null key",
        np.int64(2): "numpy key",
        False: "truth key",
    }

    assert json.loads(json.dumps(plain(answer))) == {
        "array": [[1, 2]],
        "objects": ["a", None, 1.5],
        "scalar": 0.5,
        "truth": True,
        "text": "x",
        "colour": 1,
        "pair": [1, 2],
        "ordered": {"a": 3},
        "1": "int key",
        "null": "null key",
        "2": "numpy key",
        "false": "truth key",
    }


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": {1, 2}}, "set"),
        ([b"bytes"], "bytes"),
        ({"a": [object()]}, "object"),
        ([np.array([b"x"], object)], "bytes"),
        (np.array([b"x"]), "bytes"),
        (np.array([1j]), "complex"),
        (np.complex64(1), "complex64"),
        ({(1, 2): 3}, "tuple"),
    ],
)
def test_what_json_has_no_word_for_is_named(value: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        plain(value)

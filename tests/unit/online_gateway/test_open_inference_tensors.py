"""What a client sends as tensors arrives as it was meant, in JSON and in binary, and nothing that is wrong passes."""

import json
import math
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.inference import BYTES, InferResult, InvalidInput, Tensor, TensorSpec
from online_gateway.dialects.open_inference_tensors import InferRequest, read_request, write_answer
from online_gateway.dialects.tensor_json import DTYPES, array_of, bytes_of, check_bytes, check_shape, values_of

DATATYPES = sorted(DTYPES)
WHOLE = {**dict.fromkeys(DATATYPES, "[1]"), "BOOL": "[true]", BYTES: '["x"]'}


def no_inputs() -> list[TensorSpec]:
    raise AssertionError("nobody asked for them")


def read(document: Any, binary: bytes = b"") -> InferRequest:
    text = json.dumps(document).encode()
    return read_request(text + binary, str(len(text)).encode() if binary else None, no_inputs)


def one_input(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], **fields}]}


def result_of(*tensors: Tensor) -> InferResult:
    return InferResult(generation=3, label="", worker_id="w", worker_version=None, tensors=list(tensors))


@st.composite
def some_arrays(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    datatype = draw(st.sampled_from(DATATYPES))
    dtype = DTYPES[datatype]
    options = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    elements = arrays.from_dtype(dtype, **options)
    return datatype, draw(
        arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0), elements=elements)
    )


@given(some_arrays(), st.booleans())
def test_numbers_come_through_json_as_they_were(given_array: tuple[str, np.ndarray[Any, Any]], is_flat: bool) -> None:
    datatype, array = given_array
    data = array.ravel().tolist() if is_flat or not array.ndim else array.tolist()

    tensor = read(one_input(datatype=datatype, shape=list(array.shape), data=data)).tensors[0]

    assert tensor == Tensor("x", datatype, list(array.shape), array.tobytes())
    assert values_of("x", datatype, tensor.data) == array.ravel().tolist()


@given(some_arrays())
def test_numbers_come_through_binary_as_they_were(given_array: tuple[str, np.ndarray[Any, Any]]) -> None:
    datatype, array = given_array
    data = array.tobytes()
    parameters = {"binary_data_size": len(data)}
    document = one_input(datatype=datatype, shape=list(array.shape), parameters=parameters)
    text = json.dumps(document).encode()

    request = read_request(text + data, str(len(text)).encode(), no_inputs)
    body, length = write_answer("m", InferRequest([], is_binary=True), result_of(*request.tensors))

    assert request.tensors == [Tensor("x", datatype, list(array.shape), data)]
    assert length is not None
    assert body[length:] == data


@given(st.lists(st.text(), max_size=6))
def test_text_comes_through_json_and_binary_as_it_was(texts: list[str]) -> None:
    sent = read(one_input(datatype=BYTES, shape=[len(texts)], data=texts)).tensors[0]
    sizes = {"binary_data_size": len(sent.data)}
    document = json.dumps(one_input(datatype=BYTES, shape=[len(texts)], parameters=sizes)).encode()

    again = read_request(document + sent.data, str(len(document)).encode(), no_inputs).tensors[0]
    body, _ = write_answer("m", InferRequest([]), result_of(again))

    assert again == sent
    assert json.loads(body)["outputs"][0]["data"] == texts


@given(st.binary(max_size=60), st.one_of(st.none(), st.binary(max_size=8), st.integers(0, 80).map(lambda n: b"%d" % n)))
def test_whatever_is_sent_is_read_or_refused_as_wrong_input(body: bytes, header: bytes | None) -> None:
    with suppress(InvalidInput):
        read_request(body, header, lambda: [TensorSpec("x", "FP32", (-1, 2))])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": JSON_VALUES,
            "datatype": st.sampled_from([*DATATYPES, BYTES, "BF16"]) | JSON_VALUES,
            "shape": st.lists(st.integers(), max_size=3) | JSON_VALUES,
            "data": JSON_VALUES,
            "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), JSON_VALUES) | JSON_VALUES,
        },
    ),
    st.binary(max_size=16),
)
def test_an_input_of_any_json_is_read_or_refused_as_wrong_input(fields: dict[str, Any], binary: bytes) -> None:
    text = json.dumps(one_input() | {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], **fields}]}).encode()

    with suppress(InvalidInput):
        tensor = read_request(text + binary, str(len(text)).encode(), no_inputs).tensors[0]
        assert check_shape("x", tensor.datatype, tensor.shape) >= 0
        check_bytes("x", tensor.datatype, math.prod(tensor.shape), tensor.data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data": [1]}, r"shape \[1\]; it says \[2\]"),
        ({"shape": [2, 1], "data": [[1, 2]]}, r"shape \[1, 2\]; it says \[2, 1\]"),
        ({"data": ["1", "2"]}, "must hold numbers"),
        ({"data": [1, None]}, "must hold numbers"),
        ({"data": [True, False]}, "must hold numbers"),
        ({"data": [1e39, 0]}, "does not fit into FP32"),
        ({"data": 1}, "must be an array"),
        ({"data": None}, "must be an array"),
        ({"shape": [2, 2], "data": [[1, 2], [3]]}, "rows of one length"),
        ({}, "neither 'data' nor 'binary_data_size'"),
        ({"datatype": "BF16", "data": [1, 2]}, "there are BOOL"),
        ({"datatype": "INT8", "data": [1, 128]}, "does not fit into INT8"),
        ({"datatype": "UINT8", "data": [1, -1]}, "does not fit into UINT8"),
        ({"datatype": "INT64", "data": [1, 2**64]}, "INT64|whole numbers"),
        ({"datatype": "INT32", "data": [1, 2.5]}, "whole numbers"),
        ({"datatype": "BOOL", "data": [1, 0]}, "true and false"),
        ({"datatype": "BYTES", "data": [1, 2]}, "strings"),
        ({"shape": [-1], "data": []}, "shape"),
        ({"shape": [2**40, 2**40, 0], "data": []}, "cannot have the shape"),
        ({"shape": [1] * 33, "data": [1]}, "33 dimensions"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"parameters": {"binary_data_size": -1}}, "binary_data_size"),
        ({"parameters": {"binary_data_size": 8}}, "Inference-Header-Content-Length"),
    ],
)
def test_an_input_that_is_not_what_it_says_is_refused_in_a_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(one_input(**fields))


@pytest.mark.parametrize(
    ("fields", "binary", "said"),
    [
        ({"parameters": {"binary_data_size": 4}}, b"\0" * 4, "2 of FP32 take 8"),
        ({"parameters": {"binary_data_size": 8}}, b"\0" * 9, "make 8"),
        ({"datatype": "BOOL", "parameters": {"binary_data_size": 2}}, b"\0\2", "neither 0 nor 1"),
        ({"datatype": "BYTES", "parameters": {"binary_data_size": 5}}, b"\1\0\0\0x", "holds 1 elements"),
        ({"datatype": "BYTES", "parameters": {"binary_data_size": 5}}, b"\2\0\0\0x", "ends amid an element"),
        ({"datatype": "BYTES", "parameters": {"binary_data_size": 3}}, b"\1\0\0", "ends amid an element"),
    ],
)
def test_binary_data_of_another_length_is_refused(fields: dict[str, Any], binary: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(one_input(**fields), binary)


@pytest.mark.parametrize("header", [b"", b"-1", b"x", b"3.0", b"99999", b"9" * 5000, b"+1", b" 1"])
def test_a_header_length_that_cannot_be_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        read_request(b"{}", header, no_inputs)


def test_brackets_without_end_are_refused() -> None:
    deep = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ' + b"[" * 100_000

    with pytest.raises(InvalidInput):
        read_request(deep, None, no_inputs)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"sequence_id": 7}, "Sequences"),
        ({"binary_data_output": "yes"}, "binary_data_output"),
        ({"timeout": "1"}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": True}, "timeout"),
    ],
)
def test_a_parameter_that_cannot_be_followed_is_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read({**one_input(data=[1, 2]), "parameters": parameters})


@pytest.mark.parametrize("parameters", [{"classification": 3}, {"shared_memory_region": "r"}, {"binary_data": 1}])
def test_an_output_that_cannot_be_given_so_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read({**one_input(data=[1, 2]), "outputs": [{"name": "y", "parameters": parameters}]})


def test_an_input_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        read({"inputs": one_input(data=[1, 2])["inputs"] * 2})


def test_the_timeout_is_a_budget_in_microseconds() -> None:
    assert read({**one_input(data=[1, 2]), "parameters": {"timeout": 1_500_000}}).budget_seconds == 1.5
    assert read({**one_input(data=[1, 2]), "parameters": {"timeout": 0}}).budget_seconds is None


def test_bytes_without_json_are_the_only_input() -> None:
    data = np.arange(6, dtype="<f4").tobytes()

    request = read_request(data, b"0", lambda: [TensorSpec("x", "FP32", (-1, 3))])

    assert request.tensors == [Tensor("x", "FP32", [2, 3], data)]
    assert request.is_binary


def test_text_without_json_is_one_element() -> None:
    request = read_request(b"hello", b"0", lambda: [TensorSpec("x", "BYTES", (-1,))])

    assert request.tensors == [Tensor("x", "BYTES", [1], b"\5\0\0\0hello")]


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [TensorSpec("x", "FP32", (1,)), TensorSpec("y", "FP32", (1,))],
        [TensorSpec("x", "FP32", (-1, -1))],
        [TensorSpec("x", "FP32", (3,))],
        [TensorSpec("x", "FP32", (-1, 3))],
        [TensorSpec("x", "FP32", (-1, 0))],
        [TensorSpec("x", "STRANGE", (-1,))],
    ],
)
def test_bytes_without_json_that_may_be_anything_are_refused(inputs: list[TensorSpec]) -> None:
    with pytest.raises(InvalidInput):
        read_request(b"12345", b"0", lambda: inputs)


def test_outputs_come_as_asked_for_each_in_its_way() -> None:
    request = read(
        {
            **one_input(data=[1, 2]),
            "id": "7",
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "b"}, {"name": "a", "parameters": {"binary_data": False}}],
        }
    )
    a, b, c = (Tensor(name, "INT8", [1], bytes([n])) for n, name in enumerate("abc"))

    body, length = write_answer("m", request, result_of(a, b, c))

    assert length is not None
    assert body[length:] == b"\1"
    assert json.loads(body[:length]) == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "b", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}},
            {"name": "a", "datatype": "INT8", "shape": [1], "data": [0]},
        ],
    }


def test_an_output_that_the_model_has_not_is_named() -> None:
    with pytest.raises(InvalidInput, match="no output 'z'; there are y"):
        write_answer("m", InferRequest([], outputs={"z": False}), result_of(Tensor("y", "INT8", [0], b"")))


def test_bytes_that_are_no_text_can_only_be_had_in_binary() -> None:
    raw = Tensor("y", BYTES, [1], b"\1\0\0\0\xff")

    with pytest.raises(InvalidInput, match="in binary"):
        write_answer("m", InferRequest([]), result_of(raw))
    assert write_answer("m", InferRequest([], is_binary=True), result_of(raw))[0].endswith(raw.data)


def test_what_json_cannot_say_is_null() -> None:
    data = np.array([math.nan, math.inf, 1], "<f4").tobytes()

    body, _ = write_answer("m", InferRequest([]), result_of(Tensor("y", "FP32", [3], data)))

    assert json.loads(body)["outputs"][0]["data"] == [None, None, 1.0]


@pytest.mark.parametrize("datatype", [*DATATYPES, BYTES])
def test_an_array_is_as_deep_as_its_brackets(datatype: str) -> None:
    element = WHOLE[datatype][1:-1]
    text = f" [[ [{element},{element}] ],\n[[{element},{element}]]]".encode()

    array = array_of("x", datatype, text)

    assert array.shape == (2, 1, 2)
    assert bytes_of(array) == bytes_of(array_of("x", datatype, WHOLE[datatype].encode())) * 4


def test_a_request_may_hold_fields_that_nobody_knows() -> None:
    document = {**one_input(data=[1, 2]), "raw_output": True, "parameters": {"colour": "red"}}

    assert read(document).tensors[0].name == "x"


def test_the_data_is_read_in_one_piece_however_long() -> None:
    values = list(range(100_000))
    text = msgspec.json.encode(one_input(datatype="INT32", shape=[len(values)], data=values))

    assert read_request(text, None, no_inputs).tensors[0].data == np.array(values, "<i4").tobytes()

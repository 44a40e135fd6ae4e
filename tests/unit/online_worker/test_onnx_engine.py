"""The engine ``onnx``: models made for the test, in the real onnxruntime."""

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper

from contracts.inference import Tensor, TensorSpec
from contracts.worker_protocol import Call, Failure, Result
from online_worker.engines.base import ModelSource
from online_worker.engines.onnx import OnnxEngine, OnnxModel
from online_worker.engines.onnx_safety import ModelRefused
from online_worker.engines.tensors import to_array, to_tensor
from tests.support.onnx_models import doubling, mixing, model, naming, picking, saved

Load = Callable[..., OnnxModel]

FLOAT, STRING, INT64, BOOL = TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64, TensorProto.BOOL


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a model as a worker does, with these keys in its endpoint's entry."""

    def load_model(made: onnx.ModelProto, provider: str = "cpu", **entry: Any) -> OnnxModel:
        return OnnxEngine(provider).load(source(saved(made, tmp_path / "model.onnx"), entry))

    return load_model


def source(content: Path | None, entry: Mapping[str, Any]) -> ModelSource:
    return ModelSource("tested", {"entry": entry}, content, "worker-1", lambda *_: None)


def document(number: int = 1, /, *, outputs: Sequence[str] = (), **values: Any) -> Call:
    return Call(number, "tested", 1, values, None, list(outputs))


def tensors(number: int = 1, /, *, outputs: Sequence[str] = (), **arrays: np.ndarray) -> Call:
    return Call(number, "tested", 1, None, [to_tensor(name, array) for name, array in arrays.items()], list(outputs))


def answer(loaded: OnnxModel, call: Call) -> Any:
    """The document, or the arrays by name."""
    [result] = loaded.infer([call], together=False)
    assert isinstance(result, Result), result
    assert result.id == call.id
    if result.tensors is None:
        return result.document
    return {tensor.name: to_array(tensor) for tensor in result.tensors}


def refusal(loaded: OnnxModel, call: Call) -> str:
    [failure] = loaded.infer([call], together=False)
    assert isinstance(failure, Failure), failure
    assert (failure.id, failure.kind) == (call.id, "invalid_input")
    return failure.message


def floats(*rows: Sequence[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


# --- what the model says of itself -----------------------------------------------------------------------------------


def test_inputs_and_outputs_are_read_from_the_model(load: Load) -> None:
    loaded = load(mixing())

    assert loaded.inputs == (TensorSpec("a", "FP32", (-1, 3)), TensorSpec("b", "FP32", (-1, 3)))
    assert loaded.outputs == (TensorSpec("sum", "FP32", (-1, 3)), TensorSpec("difference", "FP32", (-1, 3)))


@pytest.mark.parametrize(
    ("datatype", "name"),
    [
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.DOUBLE, "FP64"),
        (TensorProto.INT8, "INT8"),
        (TensorProto.UINT64, "UINT64"),
        (BOOL, "BOOL"),
        (STRING, "BYTES"),
    ],
)
def test_datatypes_have_the_names_of_the_open_inference_protocol(datatype: int, name: str, load: Load) -> None:
    made = model(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", datatype, [None, 2])], [("y", datatype, [None, 2])]
    )

    loaded = load(made)

    assert loaded.inputs == (TensorSpec("x", name, (-1, 2)),)


def test_the_version_says_what_serves_the_model(load: Load) -> None:
    loaded = load(doubling())

    assert loaded.version == f"onnxruntime {onnxruntime.__version__} on cpu"


def test_auto_takes_what_the_machine_has(load: Load) -> None:
    loaded = load(doubling(), provider="auto")

    expected = "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"
    assert loaded.version is not None
    assert loaded.version.endswith(expected)


def test_a_model_is_refused_where_cuda_is_asked_for_and_absent(load: Load) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")

    with pytest.raises(ModelRefused, match="Install onnxruntime-gpu"):
        load(doubling(), provider="cuda")


# --- what is not taken -----------------------------------------------------------------------------------------------


def test_an_endpoint_without_a_model_says_what_to_do() -> None:
    with pytest.raises(ModelRefused, match="upload one, or set CONTENT"):
        OnnxEngine("cpu").load(source(None, {}))


def test_a_model_that_onnxruntime_cannot_load_is_refused_without_the_path(load: Load, tmp_path: Path) -> None:
    made = doubling()
    made.graph.node[0].op_type = "Ad"

    with pytest.raises(ModelRefused, match="onnxruntime cannot load the model") as refused:
        load(made)

    assert "Ad" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_a_type_that_cannot_be_sent_is_refused(load: Load) -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)

    with pytest.raises(ModelRefused, match=r"input 'x' is a tensor\(bfloat16\).*Cast"):
        load(model([cast], [("x", TensorProto.BFLOAT16, [2])], [("y", FLOAT, [2])]))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 100_000])
def test_a_number_of_threads_that_is_none_is_refused(threads: object, load: Load) -> None:
    with pytest.raises(ModelRefused, match="THREADS must be a whole number from 1"):
        load(doubling(), THREADS=threads)


def test_more_threads_give_the_same_answers(load: Load) -> None:
    loaded = load(doubling(), THREADS=2)

    assert answer(loaded, document(values=[[1, 2]]))["values"] == [[2, 4]]


def test_a_format_that_was_not_checked_is_never_recognised(tmp_path: Path) -> None:
    path = saved(doubling(), tmp_path / "marked.ort")
    # The flatbuffer's mark stands at the bytes 4 to 8; here they are part of a name that protobuf skips.
    path.write_bytes(b"\x12\x06\x00\x00ORTM" + path.read_bytes())

    loaded = OnnxEngine("cpu").load(source(path, {}))

    assert answer(loaded, document(values=[[1, 2]]))["values"] == [[2, 4]]


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2.5], [3, 4]], [[2, 5], [6, 8]]),
        ([1, 2], [[2, 4]]),
        ([1, 2, 3, 4], [[2, 4], [6, 8]]),
        ([[1, 2]], [[2, 4]]),
    ],
)
def test_values_are_brought_into_the_shape_of_the_first_input(values: Any, expected: Any, load: Load) -> None:
    result = answer(load(doubling()), document(values=values, SIGNATURE="tested"))

    assert result == {"values": expected, "outputs": {"y": expected}}


def test_several_inputs_are_given_by_name(load: Load) -> None:
    result = answer(load(mixing()), document(inputs={"a": [[1, 2, 3]], "b": [[3, 2, 1]]}))

    assert result == {"values": [[4, 4, 4]], "outputs": {"sum": [[4, 4, 4]], "difference": [[-2, 0, 2]]}}


def test_only_the_wanted_outputs_are_given(load: Load) -> None:
    call = document(inputs={"a": [[1, 2, 3]], "b": [[3, 2, 1]]}, outputs=["difference"])

    assert answer(load(mixing()), call) == {"values": [[-2, 0, 2]], "outputs": {"difference": [[-2, 0, 2]]}}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "'x' is missing in \"values\""),
        ({"values": [1, 2, 3]}, "takes the shape [-1, 2], where -1 is any length; the values have the shape [3]"),
        ({"values": [[1, 2, 3]]}, "the values have the shape [1, 3]"),
        ({"values": [[[1, 2]]]}, "the values have the shape [1, 1, 2]"),
        ({"values": 5}, "the values have the shape []"),
        ({"values": [[1, 2], [3]]}, "unequal lengths"),
        ({"values": "1, 2"}, "takes numbers (FP32) only"),
        ({"values": ["1", "2"]}, "takes numbers (FP32) only"),
        ({"values": [None, 2]}, "takes numbers (FP32) only"),
        ({"values": [True, False]}, "takes numbers (FP32) only"),
        ({"values": {"x": 1}}, "takes numbers (FP32) only"),
        ({"values": [1e300, 0]}, "too large"),
        ({"values": [10**30, 0]}, "takes numbers (FP32) only"),
        ({"inputs": [1, 2]}, '"inputs" must be an object'),
        ({"inputs": {"z": [1, 2]}}, "The model has no input 'z'; there are 'x' (FP32 [-1, 2])"),
    ],
)
def test_a_document_that_does_not_fit_is_refused_with_what_would(given: dict[str, Any], why: str, load: Load) -> None:
    message = refusal(load(doubling()), document(**given))

    assert why in message


@pytest.mark.parametrize(
    ("values", "why"),
    [([1.5], "takes whole numbers (INT8) only"), ([128], "from -128 to 127"), ([2**63], "from -128 to 127")],
)
def test_numbers_that_a_datatype_cannot_hold_are_refused(values: Any, why: str, load: Load) -> None:
    int8 = TensorProto.INT8
    loaded = load(model([helper.make_node("Identity", ["x"], ["y"])], [("x", int8, ["N"])], [("y", int8, ["N"])]))

    assert why in refusal(loaded, document(values=values))
    assert answer(loaded, document(values=[3.0, -128]))["values"] == [3, -128]


def test_truth_values_are_given_as_such(load: Load) -> None:
    loaded = load(model([helper.make_node("Not", ["x"], ["y"])], [("x", BOOL, ["N"])], [("y", BOOL, ["N"])]))

    assert answer(loaded, document(values=[True, False]))["values"] == [False, True]
    assert "takes true and false" in refusal(loaded, document(values=[0, 1]))


def test_texts_go_in_and_come_out(load: Load) -> None:
    loaded = load(model([helper.make_node("Identity", ["x"], ["y"])], [("x", STRING, ["N"])], [("y", STRING, ["N"])]))

    assert answer(loaded, document(values=["Grüße", ""]))["values"] == ["Grüße", ""]
    assert answer(loaded, tensors(x=np.array(["Grüße"], dtype=object)))["y"].tolist() == ["Grüße".encode()]
    assert "takes strings" in refusal(loaded, document(values=["a", 1]))


def test_a_single_number_is_taken_where_the_model_takes_one(load: Load) -> None:
    loaded = load(model([helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [])], [("y", FLOAT, [])]))

    assert answer(loaded, document(values=2))["values"] == -2


def test_no_rows_are_answered_with_none(load: Load) -> None:
    loaded = load(doubling())

    assert answer(loaded, tensors(x=np.zeros((0, 2), np.float32)))["y"].shape == (0, 2)


def test_an_index_that_is_not_there_is_the_callers_mistake(load: Load) -> None:
    message = refusal(load(picking()), document(values=[5]))

    assert "The model cannot take this input" in message
    assert "idx=5" in message


def test_a_model_that_fails_is_no_mistake_of_the_caller(load: Load) -> None:
    reshape = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = helper.make_tensor("shape", INT64, [1], [4])
    loaded = load(model([reshape], [("x", FLOAT, ["N"])], [("y", FLOAT, [4])], initializers=[shape]))

    [failure] = loaded.infer([document(values=[1, 2, 3])], together=False)

    assert isinstance(failure, Failure)
    assert failure.kind == "model_failed"
    assert "Reshape" in failure.message
    assert "Traceback" in failure.trace
    assert answer(loaded, document(values=[1, 2, 3, 4]))["values"] == [1, 2, 3, 4], "it goes on after that"


# --- maps and sequences ----------------------------------------------------------------------------------------------


def test_maps_of_classes_become_objects(load: Load) -> None:
    result = answer(load(naming()), document(values=[[0.25, 0.75]]))

    assert result["values"] == [[0.25, 0.75]]
    assert result["outputs"]["by_class"] == [{"7": 0.25, "8": 0.75}]


def test_a_call_with_tensors_gets_the_outputs_that_are_tensors(load: Load) -> None:
    loaded = load(naming())

    assert answer(loaded, tensors(x=floats([0.25, 0.75]))).keys() == {"score"}
    message = refusal(loaded, tensors(x=floats([0.25, 0.75]), outputs=["by_class"]))
    assert "tensors are ['score']; send a JSON document" in message


# --- tensors ---------------------------------------------------------------------------------------------------------


def test_tensors_are_answered_with_tensors(load: Load) -> None:
    result = answer(load(mixing()), tensors(a=floats([1, 2, 3]), b=floats([3, 2, 1])))

    np.testing.assert_array_equal(result["sum"], floats([4, 4, 4]))
    np.testing.assert_array_equal(result["difference"], floats([-2, 0, 2]))


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (tensors(x=np.zeros((1, 3), np.float32)), "[1, 3]"),
        (tensors(x=np.zeros((1, 2), np.float64)), "FP64"),
        (tensors(z=np.zeros((1, 2), np.float32)), "'z' is not known"),
        (tensors(x=np.zeros((1, 2), np.float32), outputs=["z"]), "The model has no output 'z'; there are ['y']"),
        (Call(1, "tested", 1, None, [Tensor("x", "FP32", [1, 2], b"\0")], []), "takes 8"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_what_would(call: Call, why: str, load: Load) -> None:
    assert why in refusal(load(doubling()), call)


# --- several calls together ------------------------------------------------------------------------------------------


def test_calls_together_get_their_own_rows_in_their_order(load: Load) -> None:
    loaded = load(doubling())
    calls = [
        document(1, values=[[1, 1], [2, 2]]),
        tensors(2, x=floats([3, 3])),
        document(3, values=[4, 4]),
        tensors(4, x=np.zeros((0, 2), np.float32)),
    ]

    results = loaded.infer(calls, together=True)

    assert [result.id for result in results] == [1, 2, 3, 4]
    first, second, third, fourth = results
    assert isinstance(first, Result)
    assert first.document == {"values": [[2, 2], [4, 4]], "outputs": {"y": [[2, 2], [4, 4]]}}
    assert isinstance(second, Result)
    assert second.tensors == [to_tensor("y", floats([6, 6]))]
    assert isinstance(third, Result)
    assert third.document["values"] == [[8, 8]]
    assert isinstance(fourth, Result)
    assert fourth.tensors == [to_tensor("y", np.zeros((0, 2), np.float32))]


def counting(rows_out: str | None = "N") -> onnx.ModelProto:
    """``y`` is, for each row, how many rows the run had."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["count"], to=FLOAT),
        helper.make_node("Mul", ["x", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "count"], ["y"]),
    ]
    first, zero = helper.make_tensor("first", INT64, [], [0]), helper.make_tensor("zero", FLOAT, [], [0])
    return model(nodes, [("x", FLOAT, ["N", "M"])], [("y", FLOAT, [rows_out, "M"])], initializers=[first, zero])


@pytest.mark.parametrize("rows_out", ["N", "Other", None])
def test_calls_of_one_shape_are_one_run(rows_out: str | None, load: Load) -> None:
    loaded = load(counting(rows_out))
    calls = [document(1, values=[[0]]), document(2, values=[[0, 0]]), document(3, values=[[0], [0]])]

    together = loaded.infer(calls, together=True)
    apart = loaded.infer(calls, together=False)

    assert [result.document["values"] for result in together if isinstance(result, Result)] == [
        [[3]],
        [[1, 1]],
        [[3], [3]],
    ], "the second has rows of another length"
    assert [result.document["values"] for result in apart if isinstance(result, Result)] == [
        [[1]],
        [[1, 1]],
        [[2], [2]],
    ]


def test_a_wrong_call_among_others_fails_alone(load: Load) -> None:
    calls = [document(1, values=[0]), document(2, values=[99]), document(3, values="a"), document(4, values=[2, 1])]

    results = load(picking()).infer(calls, together=True)

    assert [type(result) for result in results] == [Result, Failure, Failure, Result]
    assert [result.document["values"] for result in results if isinstance(result, Result)] == [[10], [30, 20]]


@pytest.mark.parametrize("made", [doubling(rows=1), doubling(rows=2)])
def test_a_model_with_a_fixed_number_of_rows_answers_one_by_one(made: onnx.ModelProto, load: Load) -> None:
    loaded = load(made)
    rows = made.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    calls = [document(number, values=[[number, 0]] * rows) for number in (1, 2)]

    results = loaded.infer(calls, together=True)

    assert [result.document["values"][0] for result in results if isinstance(result, Result)] == [[2, 0], [4, 0]]


def test_outputs_of_other_lengths_are_made_one_by_one(load: Load) -> None:
    """The model says 'N' of both, and gives the places of what is not zero."""
    nodes = [helper.make_node("NonZero", ["x"], ["t"]), helper.make_node("Transpose", ["t"], ["y"])]
    loaded = load(model(nodes, [("x", FLOAT, [None])], [("y", INT64, [None, 1])]))

    results = loaded.infer([document(1, values=[0, 5, 5]), document(2, values=[0, 0, 7])], together=True)

    assert [result.document["values"] for result in results if isinstance(result, Result)] == [[[1], [2]], [[2]]]


def test_inputs_with_rows_of_their_own_are_not_joined(load: Load) -> None:
    made = model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [("a", FLOAT, ["N", "K"]), ("b", FLOAT, ["K", "M"])],
        [("y", FLOAT, ["N", "M"])],
    )
    inputs = {"a": [[1, 0], [0, 1]], "b": [[1, 2], [3, 4]]}

    results = load(made).infer([document(1, inputs=inputs), document(2, inputs=inputs)], together=True)

    assert [result.document["values"] for result in results if isinstance(result, Result)] == [[[1, 2], [3, 4]]] * 2


def test_maps_of_several_calls_are_shared_out(load: Load) -> None:
    results = load(naming()).infer([document(1, values=[1, 2]), document(2, values=[3, 4])], together=True)

    maps = [result.document["outputs"]["by_class"] for result in results if isinstance(result, Result)]
    assert maps == [[{"7": 1, "8": 2}], [{"7": 3, "8": 4}]]


# --- loading and letting go ------------------------------------------------------------------------------------------


def test_a_model_that_refuses_zeros_is_served_all_the_same(load: Load) -> None:
    needs_four = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = helper.make_tensor("shape", INT64, [2], [2, 2])
    loaded = load(model([needs_four], [("x", FLOAT, ["N"])], [("y", FLOAT, [2, 2])], initializers=[shape]))

    assert answer(loaded, document(values=[1, 2, 3, 4]))["values"] == [[1, 2], [3, 4]]


def large() -> onnx.ModelProto:
    weights = np.ones((1024, 1024, 4), np.float32)
    initializer = helper.make_tensor("w", FLOAT, weights.shape, weights.tobytes(), raw=True)
    return model(
        [helper.make_node("Add", ["x", "w"], ["y"])], [("x", FLOAT, [1])], [("y", FLOAT, [1024, 1024, 4])],
        initializers=[initializer],
    )  # fmt: skip


def test_memory_is_let_go_on_close(load: Load) -> None:
    made, process = large(), psutil.Process()
    load(made).close()
    before = process.memory_info().rss

    for _ in range(20):
        loaded = load(made)
        loaded.close()

    gc.collect()
    grown = process.memory_info().rss - before
    assert grown < 5 * 16 * 2**20, f"20 models of 16 MiB left {grown / 2**20:.0f} MiB behind"


def test_nothing_holds_the_session_of_a_closed_model(load: Load) -> None:
    loaded = load(doubling())
    session = weakref.ref(loaded._session)

    loaded.close()

    assert session() is None
    [failure] = loaded.infer([document(values=[1, 2])], together=False)
    assert isinstance(failure, Failure)

"""The public client of the Open Inference Protocol, unchanged, against a real gateway with real model hosts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support import onnx_models
from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

Client = triton.InferenceServerClient

MODEL = "doubling.onnx"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    endpoints = {"echo": {"ENGINE": "echo"}, "modelhost": {"ENGINE": "onnx", "NR_WORKERS": 1}}
    with OnlinePlatform(tmp_path_factory.mktemp("online"), endpoints, MAX_CALL_BYTES=2**20) as platform:
        install(platform, MODEL, onnx_models.doubling())
        yield platform


def install(platform: OnlinePlatform, name: str, model: Any) -> None:
    eventually(lambda: platform.http.post("/api/test/sendtomodelhost/", json={"data": [1]}).status_code == 200)
    answer = platform.http.put(f"/api/v1/models/{name}", files={"path": ("model.onnx", model.SerializeToString())})
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def client(platform: OnlinePlatform) -> Iterator[Client]:
    with Client(platform.url.removeprefix("http://"), concurrency=8) as client:
        yield client


def tensor(array: np.ndarray[Any, Any], name: str = "x", *, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def some_rows(rows: int = 3) -> np.ndarray[Any, Any]:
    return np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def test_the_server_lives_is_ready_and_says_what_it_can(client: Client) -> None:
    about = client.get_server_metadata()

    assert client.is_server_live()
    assert client.is_server_ready()
    assert about["name"] == "InferenceServer"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(about["extensions"])


def test_a_model_says_what_it_takes_and_gives(client: Client) -> None:
    about = client.get_model_metadata(MODEL)

    assert client.is_model_ready(MODEL)
    assert about == {
        "name": MODEL,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert client.get_model_metadata(MODEL, "1") == about


def test_a_model_has_a_configuration(client: Client) -> None:
    config = client.get_model_config(MODEL)

    assert config["backend"] == "onnxruntime"
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]}]


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("wanted_binary", [True, False])
def test_tensors_travel_in_binary_and_in_json(client: Client, sent_binary: bool, wanted_binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("y", binary_data=wanted_binary)]

    result = client.infer(MODEL, [tensor(some_rows(), binary=sent_binary)], outputs=outputs, request_id="mine")

    assert np.array_equal(result.as_numpy("y"), some_rows() * 2)
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "1"
    assert ("data" in result.get_output("y")) != wanted_binary


def test_all_outputs_come_when_none_is_named(client: Client) -> None:
    result = client.infer(MODEL, [tensor(some_rows())])

    assert np.array_equal(result.as_numpy("y"), some_rows() * 2)


DTYPES = (bool, "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_comes_back_as_it_went(client: Client, binary: bool) -> None:
    arrays = [np.array([[0, 1], [1, 1]], dtype) for dtype in DTYPES]
    inputs = [tensor(array, f"t{n}", binary=binary) for n, array in enumerate(arrays)]
    outputs = [triton.InferRequestedOutput(f"t{n}", binary_data=binary) for n in range(len(arrays))]

    result = client.infer("echo", inputs, outputs=outputs)

    for n, array in enumerate(arrays):
        back = result.as_numpy(f"t{n}")
        assert (back.dtype, back.tolist()) == (array.dtype, array.tolist())


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("wanted_binary", [True, False])
def test_bytes_come_back_as_they_went(client: Client, sent_binary: bool, wanted_binary: bool) -> None:
    texts = np.array([[b"eins", "zwölf".encode()], [b"", b"x" * 1000]], dtype=object)
    outputs = [triton.InferRequestedOutput("t", binary_data=wanted_binary)]

    back = client.infer("echo", [tensor(texts, "t", binary=sent_binary)], outputs=outputs).as_numpy("t")

    assert back.shape == (2, 2)
    assert [text if isinstance(text, bytes) else text.encode() for text in back.flat] == list(texts.flat)


def test_an_empty_tensor_is_a_tensor(client: Client) -> None:
    result = client.infer(MODEL, [tensor(np.empty((0, 2), np.float32))])

    assert result.as_numpy("y").shape == (0, 2)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(client: Client, algorithm: str, binary: bool) -> None:
    rows = some_rows(2000)
    options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]

    result = client.infer(MODEL, [tensor(rows, binary=binary)], outputs=outputs, **options)

    assert np.array_equal(result.as_numpy("y"), rows * 2)


def test_many_calls_may_be_under_way_at_once(client: Client) -> None:
    asked = [client.async_infer(MODEL, [tensor(some_rows() + n)]) for n in range(20)]

    assert all(np.array_equal(one.get_result().as_numpy("y"), (some_rows() + n) * 2) for n, one in enumerate(asked))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("array", "name", "words"),
    [
        (np.zeros((1, 3), np.float32), "x", "shape"),
        (np.zeros(2, np.float32), "x", "shape"),
        (np.zeros((1, 2), np.float64), "x", "FP64"),
        (np.zeros((1, 2), np.int32), "x", "INT32"),
        (np.zeros((1, 2), np.float32), "z", "z"),
    ],
)
def test_a_wrong_shape_type_or_name_is_refused_in_a_sentence(
    client: Client, array: np.ndarray[Any, Any], name: str, words: str, binary: bool
) -> None:
    status, message = refused(client.infer, MODEL, [tensor(array, name, binary=binary)])

    assert status == "400"
    assert words in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([triton.InferRequestedOutput("nothing")], "nothing"),
        ([triton.InferRequestedOutput("y", class_count=2)], "classification"),
    ],
)
def test_an_output_that_cannot_be_had_is_refused(client: Client, outputs: list[Any], words: str) -> None:
    status, message = refused(client.infer, MODEL, [tensor(some_rows())], outputs=outputs)

    assert (status, words in message) == ("400", True)


def test_shared_memory_is_refused(client: Client) -> None:
    given = triton.InferInput("x", [1, 2], "FP32").set_shared_memory("region", 8)

    status, message = refused(client.infer, MODEL, [given])

    assert (status, "shared memory" in message) == ("400", True)


def test_a_call_that_is_too_long_is_refused_packed_or_not(client: Client) -> None:
    rows = np.zeros((2**17 + 1, 2), np.float32)

    assert refused(client.infer, MODEL, [tensor(rows)])[0] == "413"
    assert refused(client.infer, MODEL, [tensor(rows)], request_compression_algorithm="gzip")[0] == "413"


def test_an_unknown_model_and_an_unknown_version_are_not_found(client: Client) -> None:
    assert refused(client.infer, "nothing", [tensor(some_rows())])[0] == "404"
    assert refused(client.infer, MODEL, [tensor(some_rows())], model_version="99")[0] == "404"
    assert refused(client.infer, MODEL, [tensor(some_rows())], model_version="new")[0] == "404"
    assert refused(client.get_model_metadata, "nothing")[0] == "404"
    assert refused(client.get_model_metadata, MODEL, "99")[0] == "404"
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready(MODEL, "99")


def test_calls_are_counted(client: Client) -> None:
    before = client.get_inference_statistics(MODEL)["model_stats"][0]["inference_count"]

    client.infer(MODEL, [tensor(some_rows())])
    refused(client.infer, MODEL, [tensor(np.zeros((1, 3), np.float32))])

    after = client.get_inference_statistics(MODEL, "1")["model_stats"][0]
    assert after["inference_count"] == before + 1
    assert after["inference_stats"]["success"]["count"] == before + 1
    assert after["inference_stats"]["success"]["ns"] >= after["inference_stats"]["compute_infer"]["ns"] > 0
    assert after["inference_stats"]["fail"]["count"] >= 1
    assert {one["name"] for one in client.get_inference_statistics()["model_stats"]} >= {MODEL, "echo"}


def test_a_model_is_unloaded_and_loaded_again(platform: OnlinePlatform, client: Client) -> None:
    install(platform, "resting.onnx", onnx_models.doubling())

    client.unload_model("resting.onnx")

    assert not client.is_model_ready("resting.onnx")
    assert index_of(client)["resting.onnx"]["state"] == "UNAVAILABLE"
    assert refused(client.infer, "resting.onnx", [tensor(some_rows())])[0] == "503"
    assert client.is_server_ready()

    client.load_model("resting.onnx")

    assert index_of(client)["resting.onnx"] == {"name": "resting.onnx", "version": "1", "state": "READY", "reason": ""}
    assert np.array_equal(client.infer("resting.onnx", [tensor(some_rows())]).as_numpy("y"), some_rows() * 2)


def index_of(client: Client) -> dict[str, dict[str, str]]:
    return {entry["name"]: entry for entry in client.get_model_repository_index()}


def test_a_file_is_loaded_and_replaced_by_another(client: Client) -> None:
    config = '{"backend": "onnxruntime"}'
    first = {"file:1/model.onnx": onnx_models.doubling().SerializeToString()}
    second = {"file:1/model.onnx": onnx_models.mixing().SerializeToString()}

    client.load_model("brought.onnx", config=config, files=first)
    assert client.get_model_metadata("brought.onnx")["versions"] == ["1"]

    client.load_model("brought.onnx", config=config, files=second)
    names = [spec["name"] for spec in client.get_model_metadata("brought.onnx")["inputs"]]
    assert names == ["a", "b"]
    eventually(lambda: client.get_model_metadata("brought.onnx")["versions"] == ["2"])


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        (None, {"file:1/model.onnx": b"no model"}, "model"),
        (None, {"file:1/model.onnx": b"x", "file:1/weights.onnx": b"y"}, "one file"),
        (None, {"file:1/model.plan": b"x"}, "ONNX"),
        ('{"backend": "tensorrt"}', {"file:1/model.onnx": b"x"}, "tensorrt"),
        ("[]", {"file:1/model.onnx": b"x"}, "JSON object"),
        ('{"max_batch_size": 8}', None, "cannot be changed"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(
    client: Client, config: str | None, files: dict[str, bytes] | None, words: str
) -> None:
    status, message = refused(client.load_model, "hopeless.onnx", config=config, files=files)

    assert (status, words in message) == ("400", True)
    assert "hopeless.onnx" not in index_of(client)


def test_an_endpoint_that_is_no_onnx_model_is_loaded_and_unloaded_and_takes_no_file(client: Client) -> None:
    config = '{"backend": "onnxruntime"}'
    files = {"file:1/model.onnx": onnx_models.doubling().SerializeToString()}

    client.unload_model("echo")
    was_ready = client.is_model_ready("echo")
    client.load_model("echo")
    status, message = refused(client.load_model, "echo", config=config, files=files)

    assert not was_ready
    assert client.is_model_ready("echo")
    assert (status, "engine echo" in message) == ("400", True)


def test_an_unknown_model_cannot_be_loaded(client: Client) -> None:
    assert refused(client.load_model, "nothing")[0] == "404"
    assert refused(client.unload_model, "nothing")[0] == "404"


def test_what_is_not_offered_is_refused_with_an_error_of_the_protocol(client: Client) -> None:
    assert refused(client.get_trace_settings)[0] == "404"
    assert refused(client.get_system_shared_memory_status)[0] == "404"

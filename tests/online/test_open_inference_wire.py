"""The rows of the Open Inference Protocol, called with curl; the answers are kept as golden JSON."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import onnx_models
from tests.support.curl import CurlAnswer, curl, post_json
from tests.support.golden import assert_golden
from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

MODEL = "doubling.onnx"
INFER = f"/v2/models/{MODEL}/infer"
REQUEST: dict[str, Any] = {
    "id": "7",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}],
}

MOODY = """
import time

from online_worker.endpoint import Endpoint, TensorSpec


class MoodyWorker(Endpoint):
    inputs = (TensorSpec("x", "FP32", (-1, -1)),)
    outputs = (TensorSpec("y", "FP32", (-1, -1)),)

    def predict(self, prepared):
        if prepared["x"].any():
            raise RuntimeError("the model is broken")
        time.sleep(1)
        return {"y": prepared["x"]}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    folder = tmp_path_factory.mktemp("online")
    endpoints = {
        "moody": {"ENGINE": "python"},
        "elsewhere": {"HOST": "192.0.2.1", "ENGINE": "echo"},
        "modelhost": {"ENGINE": "onnx", "NR_WORKERS": 1},
    }
    platform = OnlinePlatform(folder, endpoints, waits_until_ready=False, MAX_CALL_BYTES=2**16)
    platform.write_module("moody", MOODY)
    with platform:
        eventually(lambda: platform.state_of("moody") == "ready")
        model = onnx_models.saved(onnx_models.doubling(), folder / "model.onnx")
        url = f"{platform.url}/api/v1/models/{MODEL}"
        eventually(lambda: curl(url, "--request", "PUT", "--form", f"path=@{model}").status == 201)
        yield platform


@pytest.mark.parametrize(
    ("call", "path", "options"),
    [
        ("live", "/v2/health/live", []),
        ("ready", "/v2/health/ready", []),
        ("metadata", f"/v2/models/{MODEL}", []),
        ("metadata_of_a_version", f"/v2/models/{MODEL}/versions/1", []),
        ("metadata_of_an_unknown_version", f"/v2/models/{MODEL}/versions/99", []),
        ("metadata_of_an_unknown_model", "/v2/models/nothing", []),
        ("metadata_of_a_model_without_workers", "/v2/models/elsewhere", []),
        ("model_ready", f"/v2/models/{MODEL}/ready", []),
        ("version_ready", f"/v2/models/{MODEL}/versions/1/ready", []),
        ("model_not_ready", "/v2/models/elsewhere/ready", []),
        ("config", f"/v2/models/{MODEL}/config", []),
        ("index", "/v2/repository/index", ["--request", "POST"]),
        ("index_of_ready_ones", "/v2/repository/index", ["--data", '{"ready": true}']),
        ("index_asked_wrongly", "/v2/repository/index", ["--data", '{"ready": 3}']),
        ("unknown_path", "/v2/nothing", []),
        ("wrong_method", INFER, ["--request", "PUT"]),
    ],
)
def test_a_call_is_answered_as_ever(platform: OnlinePlatform, call: str, path: str, options: list[str]) -> None:
    assert_golden(f"open_inference/{call}", curl(platform.url + path, *options))


def test_the_server_tells_its_name(platform: OnlinePlatform) -> None:
    assert_golden("open_inference/server", curl(f"{platform.url}/v2"), "version")


def test_statistics_have_a_row_for_each_model(platform: OnlinePlatform) -> None:
    answer = curl(f"{platform.url}/v2/models/{MODEL}/stats")

    assert_golden("open_inference/statistics", answer, "count", "inference_count", "execution_count")


@pytest.mark.parametrize("path", [INFER, f"/v2/models/{MODEL}/versions/1/infer"])
def test_tensors_in_json_are_answered_in_json(platform: OnlinePlatform, path: str) -> None:
    assert_golden("open_inference/infer", post_json(platform.url + path, REQUEST))


def send_binary(platform: OnlinePlatform, folder: Path, path: str, body: bytes, length: int) -> CurlAnswer:
    (folder / "body").write_bytes(body)
    header = f"Inference-Header-Content-Length: {length}"
    return curl(platform.url + path, "--header", header, "--data-binary", f"@{folder / 'body'}")


def test_tensors_in_binary_are_taken(platform: OnlinePlatform, tmp_path: Path) -> None:
    given = {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"id": "7", "inputs": [given]}).encode()

    answer = send_binary(platform, tmp_path, INFER, text + struct.pack("<4f", 1, 2, 3, 4), len(text))

    assert_golden("open_inference/infer", answer)


def test_tensors_in_binary_are_given(platform: OnlinePlatform) -> None:
    inputs = [{**REQUEST["inputs"][0], "data": [1, 4, 16, 64]}]  # twice these have bytes that are ASCII

    answer = post_json(f"{platform.url}{INFER}", {"inputs": inputs, "parameters": {"binary_data_output": True}})

    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["model-generation"] == "1"
    assert struct.unpack("<4f", answer.body[length:].encode()) == (2, 8, 32, 128)
    assert json.loads(answer.body[:length]) == {
        "model_name": MODEL,
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}],
    }


def test_the_bytes_of_the_only_input_need_no_json(platform: OnlinePlatform, tmp_path: Path) -> None:
    answer = send_binary(platform, tmp_path, INFER, struct.pack("<4f", 1, 4, 16, 64), 0)

    length = int(answer.headers["inference-header-content-length"])
    assert struct.unpack("<4f", answer.body[length:].encode()) == (2, 8, 32, 128)


def x(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{**REQUEST["inputs"][0], **fields}]}


@pytest.mark.parametrize(
    ("call", "model", "document"),
    [
        ("refused_shape", MODEL, x(shape=[1, 4], data=[1, 2, 3, 4])),
        ("refused_type", MODEL, x(datatype="INT32")),
        ("refused_data", MODEL, x(data=["1", "2", "3", "4"])),
        ("refused_name", MODEL, x(name="z")),
        ("refused_output", MODEL, {**REQUEST, "outputs": [{"name": "z"}]}),
        ("refused_document", MODEL, {"instances": [1]}),
        ("refused_length", MODEL, x(data=[1])),
        ("failed_model", "moody", REQUEST),
        ("too_late", "moody", {**x(data=[0, 0, 0, 0]), "parameters": {"timeout": 100_000}}),
        ("too_long", MODEL, x(shape=[2**14, 2], data=[0] * 2**15)),
        ("unknown_model", "nothing", REQUEST),
        ("unknown_version", f"{MODEL}/versions/99", REQUEST),
        ("no_workers", "elsewhere", REQUEST),
    ],
)
def test_a_call_that_cannot_be_answered_gets_a_sentence(
    platform: OnlinePlatform, call: str, model: str, document: dict[str, Any]
) -> None:
    assert_golden(f"open_inference/{call}", post_json(f"{platform.url}/v2/models/{model}/infer", document))


def test_a_length_of_the_json_that_cannot_be_is_refused(platform: OnlinePlatform, tmp_path: Path) -> None:
    assert_golden("open_inference/refused_header", send_binary(platform, tmp_path, INFER, b"{}", 1000))


def test_web_pages_change_nothing(platform: OnlinePlatform) -> None:
    page = ["--request", "POST", "--header", "Origin: http://pages.example"]

    for action in ("load", "unload"):
        answer = curl(f"{platform.url}/v2/repository/models/{MODEL}/{action}", *page)
        assert answer.status == 403
        assert set(answer.json) == {"error"}
    assert curl(f"{platform.url}/v2/models/{MODEL}/ready").status == 200

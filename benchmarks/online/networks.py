"""ONNX models: what one costs through the gateway, against onnxruntime alone in one process."""

import base64
import importlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray

from benchmarks.results import Effort, Findings, Row, median, milliseconds
from models_examples.build import ROOT as EXAMPLES
from online_worker.endpoint import Endpoint, EndpointContext
from tests.support.online import ADMIN, OnlinePlatform
from tests.support.waiting import eventually

_MOST_OVER = 0.10
_IRIS_ROWS = 16_384
_PAGE_SIDE = 736
"""Pixels of the square that the detector is given, as the example gives it a page."""

_NAME = "model.onnx"
_CONTENT_SECONDS = 700

Array = NDArray[Any]


def measure(effort: Effort, folder: Path) -> Findings:
    """The flowers of iris, and the text detector of the page reader."""
    rng = np.random.default_rng(4)
    iris_rows = rng.uniform(0.1, 7.9, (_IRIS_ROWS, 4)).astype(np.float32)
    page = rng.uniform(-1, 1, (1, 3, _PAGE_SIDE, _PAGE_SIDE)).astype(np.float32)
    cases = (
        (f"iris, {_IRIS_ROWS:,} rows a call", EXAMPLES / "iris" / "iris.onnx", iris_rows, effort.of(300, 20)),
        (f"text detector, {_PAGE_SIDE} x {_PAGE_SIDE} pixels a call", _detector(folder), page, effort.of(30, 3)),
    )
    rows = [_one(title, model, array, calls, folder / model.stem) for title, model, array, calls in cases]
    return Findings([*rows, _page(effort.of(15, 3), folder)])


def _detector(folder: Path) -> Path:
    """Taken out of the content that the page reader is registered with."""
    content = folder / "ocr.zip"
    command = [sys.executable, str(EXAMPLES / "ocr" / "make_content.py"), str(content)]
    subprocess.run(command, check=True, timeout=_CONTENT_SECONDS)
    with zipfile.ZipFile(content) as archive:
        return Path(archive.extract("detector.onnx", folder))


def _one(title: str, model: Path, array: Array, calls: int, folder: Path) -> Row:
    alone = _runtime_alone(model, array)
    folder.mkdir(exist_ok=True)
    with _served(model, folder) as served:
        ask = _asker(served, array)
        floor, mine = _by_turns(alone, ask, calls)
    return _row(title, floor, mine)


def _row(title: str, floor: list[float], mine: list[float]) -> Row:
    over = median(mine) / median(floor) - 1
    return Row(
        title,
        milliseconds(median(floor)),
        milliseconds(median(mine)),
        f"{over:+.1%}",
        f"≤ {_MOST_OVER:+.0%}",
        over <= _MOST_OVER,
    )


def _page(calls: int, folder: Path) -> Row:
    """A page read by the example's endpoint, from its file; the floor is the same class in this process."""
    image = {"image": base64.b64encode(_sample_page(folder)).decode()}
    example = _example_endpoint()
    place = folder / "page"
    place.mkdir()
    entry = {"NR_WORKERS": 1, "MODULE": str(EXAMPLES / "ocr" / "endpoint.py")}
    with OnlinePlatform(place, {"ocr": entry}) as platform:
        floor, mine = _by_turns(
            lambda: example.predict(example.preprocess(image)),
            lambda: platform.http.post("/run", json={"SIGNATURE": "ocr", **image}).raise_for_status(),
            calls,
        )
    return _row("a page, from its file to its text", floor, mine)


def _sample_page(folder: Path) -> bytes:
    sample = folder / "page.zip"
    command = [sys.executable, str(EXAMPLES / "ocr" / "make_sample.py"), str(sample)]
    subprocess.run(command, check=True, timeout=_CONTENT_SECONDS)
    with zipfile.ZipFile(sample) as archive:
        (name,) = archive.namelist()
        return archive.read(name)


def _example_endpoint() -> Endpoint:
    """The class of the example, loaded as a worker does."""
    sys.path.insert(0, str(EXAMPLES / "ocr"))
    kind: type[Endpoint] = importlib.import_module("endpoint").OcrEndpoint
    example = kind.create(EndpointContext("ocr", {}, "benchmark", lambda *_: None))
    example.load(None)
    example.warm_up()
    return example


def _by_turns(alone: Callable[[], object], ask: Callable[[], object], calls: int) -> tuple[list[float], list[float]]:
    """Seconds of each call, one way and the other, after a few that do not count."""
    for _ in range(3):
        alone()
        ask()
    pairs = [(_seconds(alone), _seconds(ask)) for _ in range(calls)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _runtime_alone(model: Path, array: Array) -> Callable[[], object]:
    """One thread, as a worker has."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)


@contextmanager
def _served(model: Path, folder: Path) -> Iterator[OnlinePlatform]:
    with OnlinePlatform(folder, {"modelhost": {"ENGINE": "onnx", "NR_WORKERS": 1}}) as platform:
        eventually(lambda: platform.http.post("/api/test/sendtomodelhost/", json={"data": [1]}).is_success, 60)
        with model.open("rb") as content:
            answer = platform.http.put(f"/api/v1/models/{_NAME}", files={"path": content}, headers=ADMIN)
        answer.raise_for_status()
        yield platform


def _asker(platform: OnlinePlatform, array: Array) -> Callable[[], object]:
    """Asks as the public client does, with binary tensors both ways."""
    client = triton.InferenceServerClient(platform.url.removeprefix("http://"))
    spec = client.get_model_metadata(_NAME)["inputs"][0]
    sent = triton.InferInput(spec["name"], list(array.shape), spec["datatype"])
    sent.set_data_from_numpy(array)
    return lambda: client.infer(_NAME, [sent])

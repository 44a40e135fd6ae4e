"""Bodies that are no text are the caller's mistake in every dialect, and never the server's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.online import OnlinePlatform

ROUTES = (
    ("/run", b'{"SIGNATURE": "echo", "x": %s}', 422),
    ("/v2/models/echo/infer", b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [%s]}]}', 400),
    ("/v2/models/echo/infer", b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [%s]}]}', 400),
    ("/v2/repository/models/echo/load", b'{"parameters": {"config": %s}}', 400),
    ("/api/test/sendtomodelhost/", b'{"data": [%s]}', 422),
    ("/predict", b'{"vector": %s}', 200),
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    folder: Path = tmp_path_factory.mktemp("wrong-text")
    endpoints = {"echo": {"ENGINE": "echo"}, "modelhost": {"ENGINE": "onnx", "NR_WORKERS": 1}}
    with OnlinePlatform(folder, endpoints, VECTOR_ENDPOINT="echo") as started:
        yield started


@pytest.mark.parametrize("wrong", [b'"\xc1\xc1"', b'{"\xc1": 1}', b'"\xed\xa0\x80"', b"\xff\xfe"], ids=repr)
@pytest.mark.parametrize(("path", "body", "status"), ROUTES, ids=[f"{path} {body[-9:]!r}" for path, body, _ in ROUTES])
def test_what_is_no_utf8_is_refused_with_a_sentence(
    platform: OnlinePlatform, path: str, body: bytes, status: int, wrong: bytes
) -> None:
    answer = platform.http.post(path, content=body % wrong, headers={"Content-Type": "application/json"})

    assert answer.status_code == status, answer.text
    assert answer.json().get("status") is not True
    assert "a dialect failed" not in platform.log

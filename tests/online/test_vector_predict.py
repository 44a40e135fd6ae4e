"""The rows of the vector service, called with curl, with the network of the examples; answers are kept as golden JSON."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.curl import CurlAnswer, curl, post_json
from tests.support.golden import assert_golden
from tests.support.online import OnlinePlatform
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).parents[2] / "models_examples" / "vector_sum"
WORKERS = 2

SOLE_ENDPOINT = {"NR_WORKERS": WORKERS, "MODULE": str(EXAMPLE / "endpoint.py"), "NEEDS_CONTENT": True}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    with OnlinePlatform(tmp_path_factory.mktemp("online"), {"vector_sum": SOLE_ENDPOINT}) as platform:
        eventually(lambda: workers_of(platform) == WORKERS)
        yield platform


@pytest.fixture
def platform(service: OnlinePlatform) -> OnlinePlatform:
    """The service with the first weights."""
    assert set_weights(service, "first", EXAMPLE / "weights_1.txt").json["status"] is True
    return service


def set_weights(platform: OnlinePlatform, nn_id: str, file: Path, *options: str) -> CurlAnswer:
    put = ["--request", "PUT", "--header", "Content-Type:multipart/form-data"]
    form = ["--form", f"nn_id={nn_id}", "--form", f"data=@{file};type=application/octet-stream"]
    return curl(f"{platform.url}/set_weights", *put, *form, *options)


def predict(platform: OnlinePlatform, document: Any) -> CurlAnswer:
    return post_json(f"{platform.url}/predict", document)


def status(platform: OnlinePlatform) -> CurlAnswer:
    return curl(f"{platform.url}/status")


def workers_of(platform: OnlinePlatform) -> int:
    return int(status(platform).json.get("workers_count", 0))


def trace_of(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def test_before_any_weights_a_call_says_what_is_missing(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path, {"vector_sum": {**SOLE_ENDPOINT, "NR_WORKERS": 1}}) as platform:
        eventually(lambda: workers_of(platform) == 1)
        answer = predict(platform, {"vector": [0.3, 0.7]})

        assert (answer.status, answer.json["status"], answer.json["result"]) == (200, False, 0.0)
        assert "vector_sum" in trace_of(answer.json["message"])
        assert_golden("vector_predict/status_before_weights", status(platform))


def test_weights_are_set_on_every_worker(service: OnlinePlatform) -> None:
    assert_golden("vector_predict/set_weights", set_weights(service, "second", EXAMPLE / "weights_2.txt"))
    assert {worker["nn_id"] for worker in status(service).json["workers"]} == {"second"}


def test_the_network_with_the_weights_adds_and_names_them(platform: OnlinePlatform) -> None:
    first = predict(platform, {"vector": [0.3, 0.7]})
    set_weights(platform, "third", EXAMPLE / "weights_3.txt")
    third = predict(platform, {"vector": [0.3, 0.7]})

    assert_golden("vector_predict/predict", first, "result", "model-generation")
    assert first.json["result"] == pytest.approx(1, abs=1e-4)
    assert third.json["message"] == "third"
    assert third.json["result"] == pytest.approx(1, abs=0.02)
    assert third.json["result"] != first.json["result"]
    assert int(third.headers["model-generation"]) == int(first.headers["model-generation"]) + 1


@pytest.mark.parametrize(
    "document",
    [
        {"vector": [0.1, 0.2, 0.3]},
        {"vector": ["a", "b"]},
        {"vector": 5},
        {"vector": [None, 1]},
        {"numbers": [1, 2]},
        [],
    ],
)
def test_a_vector_that_is_none_is_refused_with_a_trace(platform: OnlinePlatform, document: Any) -> None:
    answer = predict(platform, document)

    assert answer.status == 200
    assert (answer.json["status"], answer.json["result"]) == (False, 0.0)
    assert list(answer.json) == ["status", "message", "result"]
    assert "vector" in trace_of(answer.json["message"]) or "object" in trace_of(answer.json["message"])


def test_a_vector_of_three_gets_the_stack_of_the_worker(platform: OnlinePlatform) -> None:
    trace = trace_of(predict(platform, {"vector": [0.1, 0.2, 0.3]}).json["message"])

    assert "two numbers" in trace
    assert "Traceback" in trace


def test_a_body_that_is_no_json_is_refused(platform: OnlinePlatform) -> None:
    answer = curl(f"{platform.url}/predict", "--data", "vector=1")

    assert_golden("vector_predict/predict_of_no_json", answer)


@pytest.mark.parametrize("broken", ["of another shape", "no base64", "base64 of nothing known", "empty"])
def test_broken_weights_are_refused_by_every_worker_and_the_old_ones_serve_on(
    platform: OnlinePlatform, tmp_path: Path, broken: str
) -> None:
    contents = {
        "of another shape": (EXAMPLE / "weights_broken.txt").read_bytes(),
        "no base64": b"\xff\xfe these are no weights",
        "base64 of nothing known": base64.b64encode(b"nothing known"),
        "empty": b"",
    }
    (tmp_path / "weights.txt").write_bytes(contents[broken])
    generation = predict(platform, {"vector": [0.3, 0.7]}).headers["model-generation"]

    answer = set_weights(platform, "broken", tmp_path / "weights.txt")

    assert_golden("vector_predict/set_weights_broken", answer)
    assert all("WeightsError" in trace_of(worker["trace"]) for worker in answer.json["workers"])
    after = predict(platform, {"vector": [0.3, 0.7]})
    assert (after.json["message"], after.headers["model-generation"]) == ("first", generation)
    assert {worker["nn_id"] for worker in status(platform).json["workers"]} == {"first"}


@pytest.mark.parametrize(
    ("call", "form"),
    [
        ("set_weights_without_id", ["--form", f"data=@{EXAMPLE / 'weights_1.txt'}"]),
        ("set_weights_without_file", ["--form", "nn_id=none"]),
        ("set_weights_with_text", ["--form", "nn_id=none", "--form", "data=text"]),
        ("set_weights_without_form", ["--data", "nn_id=none"]),
    ],
)
def test_a_form_that_lacks_something_is_refused(platform: OnlinePlatform, call: str, form: list[str]) -> None:
    assert_golden(f"vector_predict/{call}", curl(f"{platform.url}/set_weights", "--request", "PUT", *form))
    assert predict(platform, {"vector": [0, 0]}).json["message"] == "first"


def test_the_fields_may_come_in_either_order(platform: OnlinePlatform) -> None:
    form = ["--form", f"data=@{EXAMPLE / 'weights_2.txt'}", "--form", "nn_id=after"]

    assert curl(f"{platform.url}/set_weights", "--request", "PUT", *form).json["status"] is True
    assert predict(platform, {"vector": [0, 0]}).json["message"] == "after"


def test_the_status_has_the_queue_and_every_worker(platform: OnlinePlatform) -> None:
    for _ in range(20):
        predict(platform, {"vector": [0.3, 0.7]})

    answer = status(platform)

    assert_golden("vector_predict/status", answer)
    assert answer.json["req_handling_time_avg_ms"] > 0
    assert sum(worker["count_requests_handled"] for worker in answer.json["workers"]) >= 20
    assert all(address for worker in answer.json["workers"] for address in worker["address"])


@pytest.mark.parametrize(
    ("call", "path", "method"),
    [
        ("wrong_method_predict", "/predict", "GET"),
        ("wrong_method_set_weights", "/set_weights", "POST"),
        ("wrong_method_status", "/status", "DELETE"),
    ],
)
def test_another_method_is_answered_in_the_service_s_way(
    platform: OnlinePlatform, call: str, path: str, method: str
) -> None:
    assert_golden(f"vector_predict/{call}", curl(platform.url + path, "--request", method))


def test_web_pages_set_no_weights(platform: OnlinePlatform) -> None:
    answer = set_weights(platform, "theirs", EXAMPLE / "weights_2.txt", "--header", "Origin: http://pages.example")

    assert_golden("vector_predict/set_weights_forbidden", answer)
    assert predict(platform, {"vector": [0, 0]}).json["message"] == "first"


def test_a_gateway_without_the_service_says_so(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path) as platform:
        assert_golden("vector_predict/no_service_status", status(platform))
        assert_golden("vector_predict/no_service_predict", predict(platform, {"vector": [1, 2]}))
        assert_golden(
            "vector_predict/no_service_set_weights", set_weights(platform, "first", EXAMPLE / "weights_1.txt")
        )


def test_without_workers_weights_are_not_taken(tmp_path: Path) -> None:
    with OnlinePlatform(tmp_path, {"vector_sum": {**SOLE_ENDPOINT, "NR_WORKERS": 0}}) as platform:
        answer = set_weights(platform, "first", EXAMPLE / "weights_1.txt")

        assert_golden("vector_predict/set_weights_without_workers", answer)

"""The rows of the Inferrer's calls, made with curl; the answers are kept as golden JSON."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import onnx_models
from tests.support.curl import CurlAnswer, curl, post_json
from tests.support.golden import assert_golden
from tests.support.online import ADMIN_TOKEN, OnlinePlatform
from tests.support.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "models_examples"
IRIS = EXAMPLES / "iris" / "iris.onnx"
SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlinePlatform]:
    endpoints = {
        "modelhost": {"ENGINE": "onnx", "NR_WORKERS": 2},
        "iris": {"ENGINE": "onnx", "CONTENT": str(IRIS), "DESCRIPTION": "Tells kinds of iris."},
        "spare": {"ENGINE": "onnx", "CONTENT": str(IRIS)},
        "echo": {"ENGINE": "echo", "NR_WORKERS": 0},
    }
    folder = tmp_path_factory.mktemp("online")
    with OnlinePlatform(folder, endpoints, waits_until_ready=False, MAX_MODEL_BYTES=2**20) as platform:
        eventually(lambda: platform.state_of("iris") == platform.state_of("spare") == "ready")
        eventually(lambda: len(hosts_of(spread(platform))) == 2)
        yield platform


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_models.saved(onnx_models.doubling(), tmp_path_factory.mktemp("models") / "model.onnx")


def url_of(platform: OnlinePlatform, name: str) -> str:
    return f"{platform.url}/api/v1/models/{name}"


def upload(platform: OnlinePlatform, name: str, file: Path, *options: str) -> CurlAnswer:
    return curl(url_of(platform, name), "--request", "PUT", "--form", f"path=@{file}", *options)


def delete(platform: OnlinePlatform, name: str) -> CurlAnswer:
    return curl(url_of(platform, name), "--request", "DELETE")


def spread(platform: OnlinePlatform, items: int = 40) -> CurlAnswer:
    return post_json(f"{platform.url}/api/test/sendtomodelhost/", {"data": [f"ITEM {n}" for n in range(items)]})


def hosts_of(answer: CurlAnswer) -> set[str]:
    return {one["modelhost"] for one in answer.json.get("responses", ())}


@pytest.mark.parametrize(
    ("call", "path", "options"),
    [
        ("welcome", "/", []),
        ("list", "/api/v1/models", []),
        ("information_of_all", "/api/v1/models/information", []),
        ("information", "/api/v1/models/iris.onnx", []),
        ("information_of_an_unknown_model", "/api/v1/models/nothing.onnx", []),
        ("information_of_what_is_no_onnx", "/api/v1/models/echo", []),
        ("unknown_path", "/api/v1/nothing", []),
        ("wrong_method", "/api/v1/models", ["--request", "PATCH"]),
        ("wrong_method_at_a_model", "/api/v1/models/iris.onnx", ["--request", "PATCH"]),
    ],
)
def test_a_call_is_answered_as_ever(platform: OnlinePlatform, call: str, path: str, options: list[str]) -> None:
    assert_golden(f"onnx_models/{call}", curl(platform.url + path, *options))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("call", "model", "document"),
    [
        ("prediction", "iris.onnx", {"values": [SETOSA, VIRGINICA]}),
        ("prediction_of_one_row", "iris.onnx", {"values": VIRGINICA}),
        ("prediction_of_an_unknown_model", "nothing.onnx", {"values": VIRGINICA}),
        ("prediction_of_too_few_values", "iris.onnx", {"values": [[1, 2]]}),
        ("prediction_of_text", "iris.onnx", {"values": ["one", "two", "three", "four"]}),
        ("prediction_without_values", "iris.onnx", {"value": VIRGINICA}),
        ("prediction_of_what_is_no_list", "iris.onnx", {"values": 5}),
    ],
)
def test_a_prediction_is_the_first_output(
    platform: OnlinePlatform, method: str, call: str, model: str, document: dict[str, Any]
) -> None:
    answer = post_json(f"{url_of(platform, model)}/prediction", document, "--request", method)

    assert_golden(f"onnx_models/{call}", answer)


def test_a_body_that_is_no_json_is_refused(platform: OnlinePlatform) -> None:
    answer = curl(f"{url_of(platform, 'iris.onnx')}/prediction", "--data", "values=1")

    assert_golden("onnx_models/prediction_of_no_json", answer)


def test_a_model_is_uploaded_described_asked_and_deleted(platform: OnlinePlatform, model_file: Path) -> None:
    url = url_of(platform, "mine.onnx")

    assert_golden("onnx_models/upload", upload(platform, "mine.onnx", model_file))
    assert_golden("onnx_models/describe", post_json(url, {"model_description": "It doubles: „zwölf“ is 24."}))
    assert_golden("onnx_models/information_after_upload", curl(url))
    assert_golden("onnx_models/prediction_after_upload", post_json(f"{url}/prediction", {"values": [[1, 2], [3, 4]]}))
    assert "mine.onnx" in curl(f"{platform.url}/api/v1/models").json["model_list"]
    assert_golden("onnx_models/delete", delete(platform, "mine.onnx"))
    assert_golden("onnx_models/delete_again", delete(platform, "mine.onnx"))
    assert curl(url).status == 404
    assert post_json(f"{url}/prediction", {"values": [[1, 2]]}).status == 404


def test_an_upload_may_bring_its_description_and_replaces_what_was_there(
    platform: OnlinePlatform, model_file: Path, tmp_path: Path
) -> None:
    mixing = onnx_models.saved(onnx_models.picking(), tmp_path / "picking.onnx")

    upload(platform, "replaced.onnx", mixing, "--form", "model_description=first")
    second = upload(platform, "replaced.onnx", model_file)

    about = curl(url_of(platform, "replaced.onnx")).json
    assert (second.status, second.json["generation"]) == (201, 2)
    assert (about["description"], [one["name"] for one in about["inputs"]]) == ("first", ["x"])
    answer = post_json(f"{url_of(platform, 'replaced.onnx')}/prediction", {"values": [[1, 2]]})
    assert answer.headers["model-generation"] == "2"
    delete(platform, "replaced.onnx")


def test_a_model_of_the_configuration_is_replaced_and_not_deleted(platform: OnlinePlatform, model_file: Path) -> None:
    assert upload(platform, "spare.onnx", model_file).status == 201
    assert_golden("onnx_models/delete_of_a_configured_model", delete(platform, "spare.onnx"))

    assert curl(f"{platform.url}/api/v1/models").json["model_list"] == ["iris.onnx", "spare.onnx"]
    assert [one["name"] for one in curl(url_of(platform, "spare.onnx")).json["inputs"]] == ["x"]


@pytest.mark.parametrize("name", ["mine", "mine.pb", "mine.onnx.zip", "onnx"])
def test_a_name_without_the_suffix_is_refused(platform: OnlinePlatform, model_file: Path, name: str) -> None:
    answer = upload(platform, name, model_file)

    assert answer.status == answer.json["http_status"]["code"] == 415
    assert repr(name) in answer.json["http_status"]["description"]


def test_an_upload_without_the_file_is_refused(platform: OnlinePlatform, model_file: Path) -> None:
    url = url_of(platform, "refused.onnx")
    put = ["--request", "PUT"]

    assert_golden("onnx_models/upload_of_another_field", curl(url, *put, "--form", f"model=@{model_file}"))
    assert_golden("onnx_models/upload_of_no_form", curl(url, *put, "--data-binary", f"@{model_file}"))
    assert_golden("onnx_models/upload_of_text", curl(url, *put, "--form", "path=text"))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08\x12" * 100])
def test_bytes_that_do_not_load_are_refused_and_leave_nothing(
    platform: OnlinePlatform, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)

    answer = upload(platform, "refused.onnx", tmp_path / "bad.onnx")

    assert answer.status == answer.json["http_status"]["code"] == 422
    assert answer.json["http_status"]["description"]
    assert curl(url_of(platform, "refused.onnx")).status == 404


def test_bytes_that_do_not_load_leave_the_model_before(
    platform: OnlinePlatform, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    upload(platform, "kept.onnx", model_file)

    assert upload(platform, "kept.onnx", tmp_path / "bad.onnx").status == 422

    answer = post_json(f"{url_of(platform, 'kept.onnx')}/prediction", {"values": [[1, 2]]})
    assert (answer.json["values"], answer.headers["model-generation"]) == ([[2, 4]], "1")
    delete(platform, "kept.onnx")


def test_a_model_above_the_limit_is_refused(platform: OnlinePlatform, tmp_path: Path) -> None:
    (tmp_path / "large.onnx").write_bytes(b"x" * (2**20 + 1))

    assert_golden("onnx_models/upload_too_large", upload(platform, "large.onnx", tmp_path / "large.onnx"))


@pytest.mark.parametrize(
    ("call", "body"),
    [("describe_without_text", "{}"), ("describe_with_a_number", '{"model_description": 5}')],
)
def test_a_description_must_be_text(platform: OnlinePlatform, call: str, body: str) -> None:
    assert_golden(f"onnx_models/{call}", curl(url_of(platform, "iris.onnx"), "--data", body))


def test_an_unloaded_model_cannot_be_asked_until_it_is_loaded(platform: OnlinePlatform, model_file: Path) -> None:
    upload(platform, "resting.onnx", model_file)
    prediction = f"{url_of(platform, 'resting.onnx')}/prediction"
    repository = f"{platform.url}/v2/repository/models/resting.onnx"

    curl(f"{repository}/unload", "--request", "POST")
    assert_golden("onnx_models/prediction_of_an_unloaded_model", post_json(prediction, {"values": [[1, 2]]}))

    curl(f"{repository}/load", "--request", "POST")
    assert post_json(prediction, {"values": [[1, 2]]}).status == 200
    delete(platform, "resting.onnx")


def test_a_model_with_maps_among_its_outputs_is_asked_too(platform: OnlinePlatform, tmp_path: Path) -> None:
    upload(platform, "naming.onnx", onnx_models.saved(onnx_models.naming(), tmp_path / "naming.onnx"))

    answer = post_json(f"{url_of(platform, 'naming.onnx')}/prediction", {"values": [[1, 2]]})

    assert (answer.status, answer.json["values"]) == (200, [[1, 2]])
    delete(platform, "naming.onnx")


def test_a_failure_at_run_time_says_why(platform: OnlinePlatform, tmp_path: Path) -> None:
    upload(platform, "picking.onnx", onnx_models.saved(onnx_models.picking(), tmp_path / "picking.onnx"))

    answer = post_json(f"{url_of(platform, 'picking.onnx')}/prediction", {"values": [7]})

    assert answer.status == answer.json["http_status"]["code"]
    assert answer.status in {422, 500}
    assert answer.json["http_status"]["description"]
    delete(platform, "picking.onnx")


def test_the_load_is_spread_over_the_model_hosts(platform: OnlinePlatform) -> None:
    answer = spread(platform)

    assert answer.status == 200
    assert [one["data"] for one in answer.json["responses"]] == [f"ITEM {n}" for n in range(40)]
    assert len(hosts_of(answer)) == 2


@pytest.mark.parametrize("path", ["/api/test/sendtomodelhost/", "/api/test/sendtomodelhost"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_item_is_answered_with_who_answered(platform: OnlinePlatform, path: str, method: str) -> None:
    answer = post_json(platform.url + path, {"data": ["ONE", "TWO", 3, None]}, "--request", method)

    assert_golden("onnx_models/send_to_modelhost", answer)


def test_a_spread_test_without_items_is_refused(platform: OnlinePlatform) -> None:
    answer = post_json(f"{platform.url}/api/test/sendtomodelhost/", {"data": "ONE"})

    assert_golden("onnx_models/send_to_modelhost_without_items", answer)


def test_prometheus_reads_the_metrics(platform: OnlinePlatform) -> None:
    for _ in range(3):
        post_json(f"{url_of(platform, 'iris.onnx')}/prediction", {"values": SETOSA})

    answer = curl(f"{platform.url}/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.body)}
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    handled = samples["inference_calls_total", "handled", "iris"]
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert families["inference_calls"].type == "counter"
    assert families["inference_handling_seconds"].type == "histogram"
    assert handled >= 3
    assert samples["inference_handling_seconds_count", "iris"] == handled
    assert samples["inference_handling_seconds_bucket", "+Inf", "iris"] == handled
    assert samples["inference_inference_seconds_sum", "iris"] > 0
    assert samples["inference_ready", "iris"] == 1
    assert samples["inference_workers", "iris"] == 2
    assert all(family.documentation for family in families.values())
    assert len(re.findall(r"^inference_worker_memory_bytes\{", answer.body, re.MULTILINE)) == 2


def test_web_pages_change_nothing(platform: OnlinePlatform, model_file: Path) -> None:
    page = ["--header", "Origin: http://pages.example"]
    url = url_of(platform, "iris.onnx")

    answers = [
        upload(platform, "iris.onnx", model_file, *page),
        curl(url, "--request", "DELETE", *page),
        curl(url, "--data", '{"model_description": "theirs"}', *page),
    ]

    assert [answer.status for answer in answers] == [403] * 3
    assert_golden("onnx_models/forbidden", answers[0])
    token = ["--header", f"Authorization: Bearer {ADMIN_TOKEN}"]
    assert post_json(url, {"model_description": "Tells kinds of iris."}, *page, *token).status == 200


def test_without_a_model_host_uploads_and_calls_have_to_wait(tmp_path: Path, model_file: Path) -> None:
    with OnlinePlatform(tmp_path, {"modelhost": {"ENGINE": "onnx", "NR_WORKERS": 0}}) as platform:
        assert_golden("onnx_models/upload_without_model_hosts", upload(platform, "mine.onnx", model_file))
        assert_golden("onnx_models/send_to_no_modelhost", spread(platform))
        assert curl(url_of(platform, "mine.onnx")).status == 404

"""The file of endpoints: what is read of it, and what a worker is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import InvalidRequest
from online_gateway.endpoint_config import GatewayFile, class_name, endpoint_config, gateway_file, read_gateway_file


def whole(**entries: Any) -> dict[str, Any]:
    return {"SERVER_NAME": "x", "DEFAULT_SERVER": "a", "NO_STARTUP_WAIT": True, "CONFIG_ENDPOINTS": entries}


def test_the_keys_of_the_file_are_read(tmp_path: Path) -> None:
    file = gateway_file(whole(a={"NR_WORKERS": 3, "DESCRIPTION": "d", "OWN_KEY": [1]}), tmp_path)

    assert (file.server_name, file.default_server, file.waits_at_startup) == ("x", "a", False)
    (endpoint,) = file.endpoints
    assert (endpoint.workers, endpoint.description, endpoint.local_workers) == (3, "d", 3)
    assert endpoint.config == {"NR_WORKERS": 3, "DESCRIPTION": "d", "OWN_KEY": [1]}


def test_an_entry_with_a_mistake_names_the_entry_and_the_key() -> None:
    with pytest.raises(InvalidRequest, match=r"CONFIG_ENDPOINTS\.a: NR_WORKERS"):
        endpoint_config("a", {"NR_WORKERS": "many"})


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "x" * 129])
def test_names_that_do_not_fit_into_a_path_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        endpoint_config(name, {})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"CONFIG_ENDPOINTS": []}, "must be an object"),
        ({"CONFIG_ENDPOINTS": {"a": 1}}, "must be an object"),
        ({"CONFIG_ENDPOINTS": {"modelhost.echo": {}}}, "the gateway's own"),
        ({"DEFAULT_SERVER": 5}, "DEFAULT_SERVER must be the name"),
    ],
)
def test_a_file_of_another_shape_is_refused(data: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        gateway_file(data, tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "\xff", '{"A": ' + "9" * 5000 + "}", '{"A": ' + "[" * 3000 + "]" * 3000 + "}"]
)
def test_what_is_no_such_file_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(InvalidRequest, match=r"config\.json"):
        read_gateway_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_gateway_file(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("entry", "local_workers"),
    [
        ({"NR_WORKERS": 2}, 2),
        ({"NR_WORKERS": 2, "HOST": "localhost"}, 2),
        ({"NR_WORKERS": 2, "HOST": "192.0.2.1"}, 0),
        ({"NR_WORKERS": 2, "DISABLED": True}, 0),
        ({"NR_WORKERS": 2, "HOST": "NO_HOST"}, 0),
        ({}, 1),
    ],
)
def test_workers_are_started_here_unless_they_belong_elsewhere(entry: dict[str, Any], local_workers: int) -> None:
    assert endpoint_config("a", entry).local_workers == local_workers


def test_a_module_is_looked_for_under_the_endpoints_name(tmp_path: Path) -> None:
    file = gateway_file(whole(some_model={}), tmp_path)

    told = file.load_config(file.endpoints[0])

    assert told["module"] == str(tmp_path / "endpoints" / "some_model.py")
    assert told["classes"] == ["SomeModelWorker"]


def test_server_class_names_the_module_of_another_endpoint(tmp_path: Path) -> None:
    file = gateway_file(whole(second={"SERVER_CLASS": "first"}), tmp_path)

    told = file.load_config(file.endpoints[0])

    assert told["module"] == str(tmp_path / "endpoints" / "first.py")
    assert told["classes"] == ["FirstWorker", "SecondWorker"]


def test_module_is_a_path_from_the_files_folder(tmp_path: Path) -> None:
    file = gateway_file(whole(a={"MODULE": "x/net.py"}, b={"MODULE": "/opt/b.py"}), tmp_path)

    assert [file.load_config(endpoint)["module"] for endpoint in file.endpoints] == [
        str(tmp_path / "x" / "net.py"),
        "/opt/b.py",
    ]


def test_a_program_says_where_modules_lie_and_how_classes_end(tmp_path: Path) -> None:
    file = gateway_file(whole(a={}), tmp_path).model_copy(
        update={"modules": tmp_path / "own", "class_suffix": "Server"}
    )

    told = file.load_config(file.endpoints[0])

    assert told["module"] == str(tmp_path / "own" / "a.py")
    assert told["class"] == "AServer"


def test_a_support_process_may_lie_beside_the_file(tmp_path: Path) -> None:
    file = gateway_file(whole(watch={"HOST": "NO_HOST"}), tmp_path)
    (watch,) = file.endpoints

    assert file.module_of(watch) == tmp_path / "endpoints" / "watch.py"
    (tmp_path / "watch.py").touch()
    assert file.module_of(watch) == tmp_path / "watch.py"


def test_engines_other_than_python_have_no_module(tmp_path: Path) -> None:
    file = gateway_file(whole(a={"ENGINE": "echo"}), tmp_path)

    assert file.load_config(file.endpoints[0])["module"] is None


def test_what_a_worker_is_told_can_be_sent_as_json(tmp_path: Path) -> None:
    file = gateway_file(whole(a={"KEY": {"b": [1, None, "c"]}}), tmp_path)

    assert json.loads(json.dumps(file.load_config(file.endpoints[0])))["entry"] == {"KEY": {"b": [1, None, "c"]}}


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("dummy_model_demo1", "DummyModelDemo1Worker"),
        ("ocr", "OcrWorker"),
        ("a-b.c", "ABCWorker"),
        ("camelCase", "CamelCaseWorker"),
    ],
)
def test_the_class_is_named_after_the_file(endpoint: str, expected: str) -> None:
    assert class_name(endpoint, "Worker") == expected


def test_a_gateway_without_a_file_serves_nothing() -> None:
    assert GatewayFile().endpoints == ()

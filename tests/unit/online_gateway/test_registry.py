"""Endpoints of the file and of uploads, and how many workers their pools have."""

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Conflict, InvalidRequest
from contracts.inference import UnknownEndpoint
from online_gateway.endpoint_config import POOL_ECHO, gateway_file
from online_gateway.registry import Registry


def registry(**entries: Any) -> Registry:
    return Registry(gateway_file({"CONFIG_ENDPOINTS": entries}, Path("/etc/gateway")))


def names(of: Registry) -> list[str]:
    return [entry.name for entry in of if not entry.is_hidden]


def test_support_processes_and_the_model_hosts_are_no_endpoints() -> None:
    known = registry(b={}, a={}, watch={"HOST": "NO_HOST"}, modelhost={"ENGINE": "onnx", "NR_WORKERS": 3})

    assert names(known) == ["a", "b"]
    assert [support.name for support in known.file.supports] == ["watch"]
    assert known.local_workers()["modelhost"] == 3


def test_an_unknown_name_is_answered_with_the_known_ones_and_not_with_the_hidden_one() -> None:
    with pytest.raises(UnknownEndpoint) as caught:
        registry(b={}, a={}).get("c")

    assert "there are: a, b." in caught.value.message
    assert POOL_ECHO not in caught.value.message


def test_a_disabled_endpoint_is_known_and_stopped_and_has_no_workers() -> None:
    known = registry(a={"DISABLED": True, "NR_WORKERS": 2})

    assert known.get("a").is_stopped
    assert known.local_workers()["a"] == 0


def test_a_disabled_support_process_is_not_run() -> None:
    assert registry(watch={"HOST": "NO_HOST", "DISABLED": True}).file.supports == []


def test_onnx_endpoints_share_the_model_hosts() -> None:
    known = registry(a={"ENGINE": "onnx", "NR_WORKERS": 2}, b={"ENGINE": "onnx"}, c={})

    assert known.local_workers() == {"modelhost": 2, "c": 1}


def test_the_entry_of_the_model_hosts_decides_over_what_its_endpoints_ask_for() -> None:
    known = registry(modelhost={"ENGINE": "onnx", "NR_WORKERS": 0}, a={"ENGINE": "onnx", "NR_WORKERS": 5})

    assert known.local_workers() == {"modelhost": 0}


def test_without_onnx_endpoints_no_model_host_is_started_and_one_may_dial_in() -> None:
    known = registry(a={})

    assert known.local_workers()["modelhost"] == 0
    assert known.refusal("modelhost") is None


def test_a_worker_of_an_unknown_pool_is_told_which_there_are() -> None:
    refusal = registry(a={}).refusal("b")

    assert refusal is not None
    assert "a, modelhost" in refusal


def test_an_upload_makes_an_endpoint_that_can_be_removed() -> None:
    known = registry(a={})

    entry = known.add_uploaded("m.v2", "onnx", "new")

    assert names(known) == ["a", "m.v2"]
    assert (entry.config.pool, entry.is_uploaded, entry.description) == ("modelhost", True, "new")
    known.remove("m.v2")
    assert names(known) == ["a"]


def test_what_is_kept_of_an_uploaded_endpoint_makes_it_again() -> None:
    before = registry().add_uploaded("m", "onnx", "d")
    before.description = "changed since"

    after = registry().add_kept("m", before.as_kept())

    assert (after.config, after.description, after.is_uploaded) == (before.config, "changed since", True)


@pytest.mark.parametrize("kept", [{"ENGINE": "perl"}, {"ENGINE": "onnx", "DESCRIPTION": 5}])
def test_a_spoilt_record_of_an_endpoint_is_refused(kept: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="m"):
        registry().add_kept("m", kept)


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "modelhost", POOL_ECHO, "watch", "x" * 129])
def test_names_that_mean_something_else_are_not_given_to_uploads(name: str) -> None:
    with pytest.raises(InvalidRequest):
        registry(watch={"HOST": "NO_HOST"}).add_uploaded(name, "onnx", "")


def test_an_upload_does_not_take_the_name_of_another_endpoint() -> None:
    known = registry(a={})

    with pytest.raises(Conflict):
        known.add_uploaded("a", "onnx", "")


def test_an_endpoint_of_the_file_is_not_removed_by_a_call() -> None:
    known = registry(a={})

    with pytest.raises(Conflict, match="configuration file"):
        known.remove("a")
    with pytest.raises(UnknownEndpoint):
        known.remove("b")
    assert names(known) == ["a"]


def test_an_endpoint_that_is_being_made_is_hidden() -> None:
    known = registry()

    known.add_uploaded("m", "onnx", "").is_pending = True

    assert names(known) == []

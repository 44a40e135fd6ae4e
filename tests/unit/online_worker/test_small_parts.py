"""The worker's small parts: contents, the count of holders, the scratch folder, the other engines, the settings."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.inference import Tensor
from contracts.worker_protocol import Result
from online_worker.config import OnlineWorkerSettings
from online_worker.contents import ContentBroken, Contents
from online_worker.engines.base import ModelSource
from online_worker.engines.echo import EchoEngine, EchoModel
from online_worker.engines.loading import UnknownEngine, engine_for
from online_worker.models import ModelInMemory, ModelKey, Models
from online_worker.scratch import scratch_folder
from online_worker.worker import host_addresses
from tests.support.scripted_gateway import TOKEN, document_call, tensor_call
from tests.support.waiting import eventually


def _settings(**given: object) -> OnlineWorkerSettings:
    return OnlineWorkerSettings(online_gateway="tcp://a:1", endpoint="model", worker_token=TOKEN, **given)


def test_a_content_is_what_its_pieces_were(tmp_path: Path) -> None:
    arrival = Contents(tmp_path).receive(5)

    ends = [arrival.take(b"abc", is_last=False), arrival.take(b"de", is_last=False), arrival.take(b"", is_last=True)]

    assert ends == [False, False, True]
    assert arrival.path.read_bytes() == b"abcde"


@pytest.mark.parametrize(("data", "is_last"), [(b"abcdef", False), (b"abcdef", True), (b"abcd", True)])
def test_a_content_of_another_length_is_refused_and_leaves_no_file(tmp_path: Path, data: bytes, is_last: bool) -> None:
    arrival = Contents(tmp_path).receive(5)

    with pytest.raises(ContentBroken, match=f"announced with 5 bytes; {len(data)} arrived"):
        arrival.take(data, is_last=is_last)
    arrival.discard()

    assert list(tmp_path.iterdir()) == []


_KEYS = [ModelKey("a", "1"), ModelKey("a", "2"), ModelKey("b", "1")]


@given(st.lists(st.tuples(st.sampled_from(_KEYS), st.booleans())))
def test_a_model_is_closed_when_nobody_holds_it_and_never_before(steps: list[tuple[ModelKey, bool]]) -> None:
    closed: list[ModelInMemory] = []
    models = Models(closed.append)
    holds = dict.fromkeys(_KEYS, 0)
    ends = 0

    for key, is_hold in steps:
        if is_hold:
            if models.hold(key) is None:
                models.add(key, EchoModel(), None)
            holds[key] += 1
        elif holds[key]:
            models.release(key)
            holds[key] -= 1
            ends += holds[key] == 0

    held = {key for key, count in holds.items() if count}
    assert {ModelKey(name, digest) for name, digests in models.loaded().items() for digest in digests} == held
    assert len(closed) == ends


def test_the_scratch_folder_goes_with_its_worker(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new") as folder:
        (folder / "content").touch()
        there = folder.parent

    assert there == tmp_path / "new"
    assert list(there.iterdir()) == []


def test_a_folder_of_a_worker_that_was_killed_is_removed_by_the_next_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "of-somebody").mkdir()
    code = "from online_worker.scratch import *\nimport signal, sys\nwith scratch_folder(Path(sys.argv[1])): signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as other:
        eventually(lambda: list(tmp_path.glob("online-worker-*/lock")))
        with scratch_folder(tmp_path):
            beside = len(list(tmp_path.glob("online-worker-*")))
        other.send_signal(signal.SIGKILL)

    with scratch_folder(tmp_path) as folder:
        left = sorted(path.name for path in tmp_path.iterdir())

    assert beside == 2
    assert left == sorted(["of-somebody", folder.name])


def test_the_echo_answers_a_call_with_its_input() -> None:
    source = ModelSource("echo", {}, None, "worker-1", lambda _, __: None)
    x, y = Tensor("x", "BOOL", [1], b"\1"), Tensor("y", "BOOL", [1], b"\0")

    results = (
        EchoEngine()
        .load(source)
        .infer([document_call(1, {"a": 1}), tensor_call(2, x, y), tensor_call(3, x, y, outputs=("y",))], together=True)
    )

    assert results == [Result(1, {"a": 1}, None, 0.0), Result(2, None, [x, y], 0.0), Result(3, None, [y], 0.0)]


def test_an_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownEngine, match=r"no engine 'torch'; it has python, onnx and echo\."):
        engine_for("torch", _settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [("online_gateway", "somewhere"), ("endpoint", "no/name"), ("worker_id", "two words"), ("worker_token", "short")],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        OnlineWorkerSettings(**{**_settings().model_dump(), name: value})


def test_a_host_has_an_address() -> None:
    addresses = host_addresses()

    assert addresses
    assert not any("%" in address for address in addresses)


def test_nobody_else_may_read_the_scratch_folder(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        mode = folder.stat().st_mode & 0o777
        owner = folder.stat().st_uid

    assert (mode, owner) == (0o700, os.geteuid())

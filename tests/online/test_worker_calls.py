"""How a worker answers calls: many at once, in turn or together, and whatever the model's code does."""

import os
from pathlib import Path

import numpy as np
import pytest

from contracts.inference import Tensor
from contracts.worker_protocol import Calls, Cancel, Failure, Heartbeat, Notification, Result, Results
from tests.support.online_workers import running_worker, write_module
from tests.support.scripted_gateway import (
    document_call,
    load_echo,
    load_module,
    scripted_gateway,
    tensor_call,
)

_GATED = """
    class Gated(Endpoint):
        def predict(self, prepared):
            if "gate" in prepared: Path(prepared["gate"]).read_text()
            return prepared
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A call that reads it waits until a test writes to it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def test_many_calls_in_flight_are_answered_by_their_ids() -> None:
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_echo("model"))
        for start in range(0, 1000, 50):
            line.send(Calls([document_call(start + n, {"n": start + n}) for n in range(50)], together=False))
        answers: list[Result | Failure] = []
        while len(answers) < 1000:
            answers += line.next(Results).results

    assert all(isinstance(answer, Result) and answer.document == {"n": answer.id} for answer in answers)
    assert sorted(answer.id for answer in answers) == list(range(1000))


def test_a_document_and_tensors_are_answered_in_kind() -> None:
    tensor = Tensor("x", "INT64", [3], np.arange(3).tobytes())
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_echo("model"))
        document, tensors = line.call(document_call(1, {"a": [1, "ä", None]}), tensor_call(2, tensor))

    assert document == Result(1, {"a": [1, "ä", None]}, None, 0.0)
    assert tensors == Result(2, None, [tensor], 0.0)


def test_an_answer_does_not_wait_for_the_slow_call_behind_it(tmp_path: Path, gate: Path) -> None:
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _GATED)))
        line.send(
            Calls([document_call(1, {})], together=False),
            Calls([document_call(2, {"gate": str(gate)})], together=False),
        )
        first = line.next(Results).results
        gate.write_text("open")
        second = line.next(Results).results

    assert [[answer.id for answer in first], [answer.id for answer in second]] == [[1], [2]]


def test_a_cancelled_call_that_has_not_begun_is_skipped_and_the_others_are_answered(tmp_path: Path, gate: Path) -> None:
    calls = [document_call(1, {"gate": str(gate)}), document_call(2, {}), document_call(3, {})]
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _GATED)))
        line.send(Calls(calls, together=False), Calls([document_call(4, {}), document_call(5, {})], together=True))
        with gate.open("w"):  # the first call has begun when this succeeds
            line.send(Cancel([1, 2, 4, 99]))
            for _ in range(2):  # calls that are done in no time are not interrupted by what arrives
                line.next(Heartbeat)
        answers = [answer for _ in range(4) for answer in line.next(Results).results]

    assert [answer.id for answer in answers if isinstance(answer, Result)] == [1, 3, 5]
    skipped = [(answer.id, answer.kind) for answer in answers if isinstance(answer, Failure)]
    assert skipped == [(2, "cancelled"), (4, "cancelled")]


def test_calls_of_one_frame_may_be_predicted_together(tmp_path: Path) -> None:
    code = "class Batch(Endpoint):\n    def predict_batch(self, prepared): return [len(prepared)] * len(prepared)\n"
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, code)))
        together = line.call(*[document_call(n, {}) for n in range(4)], together=True)
        in_turn = line.call(*[document_call(n, {}) for n in range(4)])
        missing = line.call(document_call(1, {}, generation=9), document_call(2, {}, generation=9), together=True)

    assert [answer.document for answer in together if isinstance(answer, Result)] == [4, 4, 4, 4]
    assert [answer.document for answer in in_turn if isinstance(answer, Result)] == [1, 1, 1, 1]
    assert [(answer.id, answer.kind) for answer in missing if isinstance(answer, Failure)] == [
        (1, "not_loaded"),
        (2, "not_loaded"),
    ]


_HOSTILE = """
    import sys, threading, os
    class Hostile(Endpoint):
        def predict(self, prepared):
            print("printed")
            return eval(prepared["code"])
"""


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("sys.exit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("{1, 2}", "there is a set in it"),
        ("2 ** 70", "The endpoint's answer cannot be sent"),
        ("'\\ud800'", "The endpoint's answer cannot be sent"),
        ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
        ("os.read(999, 1)", "OSError: [Errno 9]"),
    ],
)
def test_what_a_models_code_does_fails_its_own_call_and_not_its_neighbours(
    tmp_path: Path, code: str, sentence: str
) -> None:
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _HOSTILE)))
        good = {"code": "float('nan')"}
        before, failure, after = line.call(
            document_call(1, good), document_call(2, {"code": code}), document_call(3, good)
        )

    assert isinstance(failure, Failure)
    assert failure.kind == "model_failed"
    assert sentence in failure.message
    assert [type(before), type(after)] == [Result, Result]


def test_an_answer_that_is_longer_than_a_frame_fails_its_own_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.worker_protocol.MAX_FRAME_BYTES", 10_000)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _HOSTILE)))
        lengths = [6_000, 6_000, 20_000]
        answers = line.call(*[document_call(n, {"code": f"'x' * {length}"}) for n, length in enumerate(lengths)])

    assert [type(answer) for answer in answers] == [Result, Result, Failure]
    assert isinstance(answers[2], Failure)
    assert "a frame may have 10000" in answers[2].message


def test_an_answer_larger_than_every_buffer_arrives_whole_while_the_gateway_is_slow(tmp_path: Path) -> None:
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address):
        line = gateway.welcome(heartbeat_seconds=0.05)
        line.load(load_echo("model"))
        tensor = Tensor("x", "UINT8", [30_000_000], os.urandom(30_000_000))
        line.send(Calls([tensor_call(1, tensor)], together=False))
        line.send(Calls([document_call(2, {})], together=False))
        (large,) = line.next(Results).results
        (small,) = line.next(Results).results
        beat = line.next(Heartbeat)

    assert large == Result(1, None, [tensor], 0.0)
    assert small == Result(2, {}, None, 0.0)
    assert beat.memory_bytes


def test_a_call_of_a_generation_that_is_not_there_says_so(tmp_path: Path) -> None:
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_echo("model"))
        (failure,) = line.call(document_call(1, {}, generation=2))

    assert failure == Failure(1, "not_loaded", "Generation 2 of 'model' is not in memory here.", "")


def test_every_gateway_is_told_what_a_model_notifies(tmp_path: Path) -> None:
    code = (
        "class Tells(Endpoint):\n    def predict(self, p): self.context.notify('drift', 'inputs \\ud800 have moved')\n"
    )
    with scripted_gateway() as a, scripted_gateway() as b, running_worker(a.address, b.address):
        first, second = a.welcome(), b.welcome()
        first.load(load_module(write_module(tmp_path, code)))
        second.load(load_echo())
        first.call(document_call(1, {}))
        told = [line.heard(Notification) for line in (first, second)]

    assert [(one.endpoint, one.kind, one.message) for one in told] == [
        ("model", "drift", "inputs \\ud800 have moved")
    ] * 2

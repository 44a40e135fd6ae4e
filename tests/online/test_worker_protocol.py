"""How a worker finds its gateways, proves itself, and comes back to them."""

import os
import socket
from pathlib import Path

import pytest

from contracts.inference import TensorSpec
from contracts.worker_protocol import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Calls,
    Challenge,
    Heartbeat,
    Loaded,
    NeedContent,
    Result,
    Results,
    Unload,
)
from online_worker.loop import Ending
from tests.support.online_workers import running_worker, write_module
from tests.support.scripted_gateway import (
    Line,
    beat,
    chunks,
    document_call,
    load_echo,
    load_module,
    scripted_gateway,
)
from tests.support.waiting import eventually

_COUNTS = """
    class Counts(Endpoint):
        inputs = (TensorSpec("x", "FP32", (-1,)),)
        outputs = (TensorSpec("y", "FP32", (-1,)),)
        version = "7"
        def load(self, content): self._count("loaded")
        def predict(self, prepared): return {"y": prepared["x"]} if "x" in prepared else prepared
        def close(self): self._count("closed")
        def _count(self, what):
            with Path(__file__).with_name(what).open("a") as file: file.write("x")
"""


def _count(folder: Path, what: str) -> int:
    path = folder / what
    return len(path.read_text()) if path.exists() else 0


def test_a_worker_introduces_itself_and_says_what_it_serves(tmp_path: Path) -> None:
    with scripted_gateway() as gateway, running_worker(gateway.address, worker_id="w-1"):
        line = gateway.accept()
        hello = line.greet()
        loaded = line.load(load_module(write_module(tmp_path, _COUNTS)))

    assert (hello.version, hello.pool, hello.worker_id) == (PROTOCOL_VERSION, "model", "w-1")
    assert (hello.host, hello.pid, hello.loaded) == (socket.gethostname(), os.getpid(), {})
    assert hello.addresses
    assert (loaded.ok, loaded.message, loaded.version) == (True, "OK", "7")
    assert (loaded.inputs, loaded.outputs) == ([TensorSpec("x", "FP32", (-1,))], [TensorSpec("y", "FP32", (-1,))])
    assert loaded.memory_bytes > 2**20


def test_what_a_gateway_says_together_with_its_welcome_is_heard(tmp_path: Path) -> None:
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address):
        line = gateway.welcome(then=(load_echo(),))
        loaded = line.next(Loaded)

    assert loaded.ok


def test_a_gateway_that_does_not_know_the_token_gets_no_further(tmp_path: Path) -> None:
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address):
        liar = gateway.accept()
        liar.greet(token="another token", then=(load_echo(),))
        after = liar.wait_for_end()
        line = gateway.welcome()
        loaded = line.load(load_echo())

    assert after == []
    assert loaded.ok


@pytest.mark.parametrize("first", [Challenge(PROTOCOL_VERSION + 1, b"x" * NONCE_BYTES), Heartbeat()])
def test_a_gateway_of_another_kind_or_version_is_left_and_dialled_again(tmp_path: Path, first: Challenge) -> None:
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address):
        other = gateway.accept()
        other.send(first)
        said = other.wait_for_end()
        hello = gateway.accept().greet()

    assert said == []
    assert hello.pool == "model"


def test_a_refusal_that_is_final_ends_the_worker_and_another_does_not(tmp_path: Path) -> None:
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address) as worker:
        gateway.accept().refuse("the endpoint is being removed", is_final=False)
        gateway.accept().refuse("there is no such endpoint", is_final=True)
        ending = worker.wait()

    assert ending is Ending.REFUSED


def test_a_worker_that_one_gateway_refuses_goes_on_for_the_other(tmp_path: Path) -> None:
    with scripted_gateway() as first, scripted_gateway() as second, running_worker(first.address, second.address):
        first.accept().refuse("there is no such endpoint", is_final=True)
        loaded = second.welcome().load(load_echo())

    assert loaded.ok


def test_a_gateway_that_died_finds_its_worker_again_with_the_model_in_memory(tmp_path: Path) -> None:
    module = load_module(write_module(tmp_path, _COUNTS), content=b"weights")
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(module, b"weights")
        line.close()
        again = gateway.accept()
        hello = again.greet()
        loaded = again.load(module)

    assert hello.loaded == {"model": ["1"]}
    assert loaded.ok
    assert _count(tmp_path, "loaded") == 1


def test_a_gateway_that_falls_silent_is_dialled_again_and_one_that_beats_is_not(tmp_path: Path) -> None:
    with (
        scripted_gateway(tmp_path / "a") as silent,
        scripted_gateway(tmp_path / "b") as beating,
        running_worker(silent.address, beating.address),
    ):
        steady = beating.welcome(silence_seconds=0.6, heartbeat_seconds=0.1)
        first = silent.welcome(silence_seconds=0.6, heartbeat_seconds=0.1)
        while not _has_ended(first):
            steady.send(beat())
            steady.next(Heartbeat)
        again = silent.welcome()
        answers = again.load(load_echo()).ok, steady.load(load_echo()).ok

    assert answers == (True, True)


def _has_ended(line: Line) -> bool:
    """Whether the worker closed it; what came until now is thrown away."""
    line.socket.setblocking(False)
    try:
        while line.socket.recv(2**16):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_a_worker_beats_in_the_rhythm_it_was_told_even_while_a_call_takes_its_time(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    code = "class Waits(Endpoint):\n    def predict(self, _): return Path(__file__).with_name('gate').read_text()\n"
    with scripted_gateway(tmp_path / "s") as gateway, running_worker(gateway.address):
        line = gateway.welcome(heartbeat_seconds=0.05)
        line.load(load_module(write_module(tmp_path, code)))
        line.send(Calls([document_call(1, {})], together=False))
        beats = [line.next(Heartbeat).memory_bytes for _ in range(5)]
        nothing_answered = not any(isinstance(message, Results) for message in line.early)
        (tmp_path / "gate").write_text("open")
        (answer,) = line.next(Results).results

    assert nothing_answered
    assert all(memory > 2**20 for memory in beats)
    assert isinstance(answer, Result)
    assert answer.document == "open"


def test_two_gateways_share_a_model_and_it_is_closed_when_neither_wants_it(tmp_path: Path) -> None:
    module = write_module(tmp_path, _COUNTS)
    with scripted_gateway() as a, scripted_gateway() as b, running_worker(a.address, b.address):
        first, second = a.welcome(), b.welcome()
        loaded = first.load(load_module(module)), second.load(load_module(module, generation=5))
        first.send(Unload("model", 1))
        (gone,) = first.call(document_call(1, {}))
        (answer,) = second.call(document_call(1, {"a": 1}, generation=5))
        closed_early = _count(tmp_path, "closed")
        second.send(Unload("model", 5))
        eventually(lambda: _count(tmp_path, "closed"))

    assert [one.ok for one in loaded] == [True, True]
    assert _count(tmp_path, "loaded") == 1
    assert (gone.kind, answer.document, closed_early) == ("not_loaded", {"a": 1}, 0)


def test_two_gateways_that_ask_at_once_get_one_model_and_no_file_is_left_over(tmp_path: Path) -> None:
    order = load_module(write_module(tmp_path, _COUNTS), content=b"weights")
    with scripted_gateway() as a, scripted_gateway() as b, running_worker(a.address, b.address):
        first, second = a.welcome(), b.welcome()
        first.send(order)
        second.send(order)
        for line in (first, second):
            line.next(NeedContent)
        for line in (first, second):
            line.send(*chunks(order, b"weights"))
        loaded = first.next(Loaded), second.next(Loaded)

    assert [one.ok for one in loaded] == [True, True]
    assert _count(tmp_path, "loaded") == 1

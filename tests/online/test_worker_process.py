"""A worker as a process: how it is started, how it ends, and that it gives back what models occupied."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from contracts.worker_protocol import HEADER_BYTES, Calls, Failure, Leave, Leaving, Result, Results, Unload
from service_kit.settings import WRONG_CONFIGURATION
from tests.support.online_workers import worker_environment, worker_process, write_module
from tests.support.scripted_gateway import TOKEN, document_call, load_echo, load_module, scripted_gateway
from tests.support.waiting import eventually

_GATED = """
    class Gated(Endpoint):
        def predict(self, prepared):
            if "gate" in prepared: Path(prepared["gate"]).read_text()
            print("printed")
            return prepared.get("id")
        def close(self): Path(__file__).with_name("closed").touch()
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A call that reads it waits until a test writes to it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("by", ["signal", "gateway"])
def test_a_worker_that_is_told_to_end_answers_what_it_holds_first(tmp_path: Path, gate: Path, by: str) -> None:
    scratch = tmp_path / "scratch"
    with (
        scripted_gateway(tmp_path / "s") as gateway,
        worker_process(gateway.address, CONTENTS_DIR=str(scratch)) as process,
    ):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _GATED), content=b"x"), b"x")
        line.send(Calls([document_call(1, {"id": 1, "gate": str(gate)}), document_call(2, {"id": 2})], together=False))
        if by == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            line.send(Leave())
        gate.write_text("open")
        messages = line.wait_for_end()
        line.close()
        status = process.wait(20)

    answers = [answer for message in messages if isinstance(message, Results) for answer in message.results]
    assert [answer.document for answer in answers if isinstance(answer, Result)] == [1, 2]
    assert any(isinstance(message, Leaving) for message in messages)
    assert status == 0
    assert (tmp_path / "closed").exists()
    assert list(scratch.iterdir()) == []


def test_a_call_that_never_ends_does_not_keep_a_worker_that_was_told_to_end(tmp_path: Path, gate: Path) -> None:
    with (
        scripted_gateway(tmp_path / "s") as gateway,
        worker_process(gateway.address, CALL_DRAIN_SECONDS="0.1") as process,
    ):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _GATED)))
        line.send(Calls([document_call(1, {"gate": str(gate)})], together=False))
        process.send_signal(signal.SIGTERM)
        status = process.wait(20)

    assert status == 1


def test_a_worker_that_will_never_be_taken_in_ends_with_the_status_of_a_wrong_configuration(tmp_path: Path) -> None:
    with scripted_gateway() as gateway, worker_process(gateway.address, stderr=subprocess.PIPE) as process:
        gateway.accept().refuse("the worker token is another one", is_final=True)
        _, errors = process.communicate(timeout=20)

    assert process.returncode == WRONG_CONFIGURATION
    assert b"the worker token is another one" in errors
    assert TOKEN.encode() not in errors


def test_a_worker_ends_by_itself_when_its_gateways_stay_away(tmp_path: Path) -> None:
    with worker_process(f"unix://{tmp_path}/none", AWAY_SECONDS="0.2") as process:
        status = process.wait(20)

    assert status == 0


def test_prints_of_a_model_break_nothing_when_nobody_reads_them_any_more(tmp_path: Path) -> None:
    with (
        scripted_gateway(tmp_path / "s") as gateway,
        worker_process(gateway.address, stderr=subprocess.PIPE) as process,
    ):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _GATED)))
        assert process.stderr is not None
        process.stderr.close()
        answers = line.call(document_call(1, {"id": 1}), document_call(2, {"id": 2}))

    assert [answer.document for answer in answers if isinstance(answer, Result)] == [1, 2]


@pytest.mark.parametrize("depth", [300, 990])
def test_a_document_that_is_nested_as_deeply_as_can_be_ends_no_worker(tmp_path: Path, depth: int) -> None:
    deep = msgspec.Raw(b"\x81\xa1a" + b"\x91" * depth + b"\x90")
    calls = msgspec.msgpack.encode(["calls", [[1, "model", 1, deep, None, []]], False])
    with scripted_gateway(tmp_path / "s") as gateway, worker_process(gateway.address):
        line = gateway.welcome()
        line.load(load_echo("model"))
        line.socket.sendall(len(calls).to_bytes(HEADER_BYTES, "big") + calls)
        (deep_answer,) = line.next(Results).results
        (answer,) = line.call(document_call(2, {}))

    assert isinstance(deep_answer, Result if depth == 300 else Failure)
    assert isinstance(answer, Result)


_HEAVY = """
    class Heavy(Endpoint):
        def load(self, content):
            self.weights = content.read_bytes()
            self.numbers = np.frombuffer(self.weights, "u1").astype("u2")
            self.objects = [str(n) for n in range(50_000)]
            self.itself = self
        def predict(self, prepared): return len(self.weights)
"""


def test_a_hundred_swaps_leave_no_memory_behind(tmp_path: Path) -> None:
    content = os.urandom(20 * 2**20)
    module = write_module(tmp_path, _HEAVY)
    with scripted_gateway(tmp_path / "s") as gateway, worker_process(gateway.address, LOG_LEVEL="WARNING") as process:
        line = gateway.welcome()
        sizes = []
        for generation in range(1, 101):
            order = load_module(module, generation=generation, digest=str(generation), content=content)
            assert line.load(order, content).ok
            (answer,) = line.call(document_call(1, {}, generation=generation))
            assert isinstance(answer, Result)
            line.send(Unload("model", generation - 1))
            line.early.clear()
            if generation in {10, 100}:
                sizes.append(_settled_memory(process.pid))

    assert sizes[1] - sizes[0] < 10 * 2**20


def _settled_memory(pid: int) -> int:
    """What of a process is in memory, once two looks give the same."""
    process, looks = psutil.Process(pid), [0]

    def is_settled() -> bool:
        looks.append(process.memory_info().rss)
        return looks[-1] == looks[-2] == looks[max(-3, -len(looks))]

    eventually(is_settled, every=0.1)
    return looks[-1]


_INFER = [sys.executable, "-c", "import sys; from inference_client.cli import main; sys.exit(main())"]


def _command(*options: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    known = {
        name: value for name, value in worker_environment("").items() if name not in {"ONLINE_GATEWAY", "ENDPOINT"}
    }
    if "WORKER_TOKEN" not in environment:
        del known["WORKER_TOKEN"]
    return subprocess.run(
        [*_INFER, "worker", *options],
        env={**known, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_command_takes_its_token_from_a_file_and_serves(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    options = ["--endpoint", "echo", "--token-file", str(token), "--worker-id", "mine"]
    environment = {name: value for name, value in worker_environment("").items() if name in {"PATH", "HOME"}}
    with (
        scripted_gateway() as gateway,
        subprocess.Popen(
            [*_INFER, "worker", "--gateway", gateway.address, *options],
            env=environment,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        line = gateway.accept()
        hello = line.greet()
        loaded = line.load(load_echo())
        line.send(Leave())
        line.wait_for_end()
        line.close()
        process.communicate(timeout=20)

    assert (hello.pool, hello.worker_id) == ("echo", "mine")
    assert loaded.ok
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--endpoint", "echo", "--gateway", "tcp://127.0.0.1:1"], b"WORKER_TOKEN"),
        (["--endpoint", "echo", "--gateway", "nowhere"], b"ONLINE_GATEWAY: 'nowhere' is no address of a gateway"),
        (["--endpoint", "echo"], b"--gateway"),
    ],
)
def test_the_command_says_in_one_line_what_is_missing_or_wrong(options: list[str], sentence: bytes) -> None:
    ended = _command(*options)

    assert ended.returncode == WRONG_CONFIGURATION
    assert sentence in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_no_option_of_the_command_takes_the_token_itself() -> None:
    ended = _command("--help")

    assert b"--token-file" in ended.stdout
    assert b"--token " not in ended.stdout

"""How a worker takes a generation in beside another, and lets go of one."""

import os
from pathlib import Path

import pytest

from contracts.worker_protocol import CHUNK_BYTES, Chunk, Loaded, NeedContent, Result, Unload
from tests.support.online_workers import running_worker, write_module
from tests.support.scripted_gateway import Line, chunks, document_call, load_module, scripted_gateway
from tests.support.waiting import eventually

_WEIGHED = """
    class Weighed(Endpoint):
        def load(self, content):
            self.size = len(content.read_bytes())
            self.path = str(content)
            if self.size == 13: raise ValueError("thirteen bytes are no weights")
            if self.size == 14: raise SystemExit("fourteen")
            if self.size == 15:
                Path(__file__).with_name("loading").touch()
                Path(__file__).with_name("gate").read_text()
        def warm_up(self):
            if self.size == 16: raise RuntimeError("it does not warm")
        def predict(self, prepared): return [self.size, self.path]
        def close(self): Path(__file__).with_name(f"closed-{self.size}").touch()
"""


def _answer(line: Line, generation: int) -> list[object]:
    (answer,) = line.call(document_call(1, {}, generation=generation))
    assert isinstance(answer, Result), answer
    found: list[object] = answer.document
    return found


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_a_content_of_any_length_arrives_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        loaded = line.load(load_module(write_module(tmp_path, _WEIGHED), content=content), content)
        found, path = _answer(line, 1)
        kept = Path(str(path)).read_bytes()

    assert loaded.ok
    assert found == size
    assert kept == content


@pytest.mark.parametrize("sent", [b"1234", b"123456"])
def test_a_content_of_another_length_than_announced_is_refused_and_the_next_is_taken(
    tmp_path: Path, sent: bytes
) -> None:
    module = write_module(tmp_path, _WEIGHED)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        refused = line.load(load_module(module, content=b"12345"), sent)
        line.send(Chunk("model", 1, b"too late", True))
        accepted = line.load(load_module(module, content=b"12345"), b"12345")

    assert (refused.ok, refused.message) == (
        False,
        f"The content was announced with 5 bytes; {len(sent)} arrived.",
    )
    assert accepted.ok


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (13, "ValueError: thirteen bytes are no weights"),
        (14, "SystemExit: fourteen"),
        (16, "RuntimeError: it does not warm"),
    ],
)
def test_a_generation_that_does_not_load_is_refused_with_its_trace_while_the_old_serves(
    tmp_path: Path, size: int, message: str
) -> None:
    module = write_module(tmp_path, _WEIGHED)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(module, content=b"old"), b"old")
        new = load_module(module, generation=2, digest="2", content=b"x" * size)
        refused = line.load(new, b"x" * size)
        size_now, path = _answer(line, 1)
        files = list(Path(str(path)).parent.iterdir())

    assert (refused.ok, refused.message, refused.generation) == (False, message, 2)
    assert "Traceback" in refused.trace
    assert size_now == 3
    assert files == [Path(str(path))]


@pytest.mark.parametrize(
    ("engine", "config", "sentence"),
    [
        ("torch", {}, "no engine 'torch'"),
        ("python", {}, "names no module"),
        ("python", {"module": "/none.py"}, "There is no /none.py on this worker's host"),
    ],
)
def test_a_generation_that_cannot_be_made_is_refused_with_a_sentence(
    engine: str, config: dict[str, str], sentence: str
) -> None:
    order = load_module(Path("/none.py"))
    order.engine, order.config = engine, config
    with scripted_gateway() as gateway, running_worker(gateway.address):
        refused = gateway.welcome().load(order)

    assert not refused.ok
    assert sentence in refused.message


def test_calls_are_answered_while_a_generation_loads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    module = write_module(tmp_path, _WEIGHED)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(module, content=b"old"), b"old")
        new = load_module(module, generation=2, digest="2", content=b"x" * 15)
        line.send(new)
        line.next(NeedContent)
        line.send(*chunks(new, b"x" * 15))
        meanwhile = [_answer(line, 1)[0] for _ in range(20)]
        is_loading = not any(isinstance(message, Loaded) for message in line.early)
        (tmp_path / "gate").write_text("open")
        loaded = line.next(Loaded)
        both = _answer(line, 1)[0], _answer(line, 2)[0]

    assert meanwhile == [3] * 20
    assert is_loading
    assert loaded.ok
    assert both == (3, 15)


def test_an_order_that_comes_again_is_answered_again_and_loads_nothing(tmp_path: Path) -> None:
    order = load_module(write_module(tmp_path, _WEIGHED), content=b"old")
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        first = line.load(order, b"old")
        path = _answer(line, 1)[1]
        second = line.load(order)
        path_now = _answer(line, 1)[1]

    assert (first.ok, second.ok) == (True, True)
    assert path_now == path


def test_nothing_is_left_of_a_generation_that_is_unloaded(tmp_path: Path) -> None:
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(write_module(tmp_path, _WEIGHED), content=b"old"), b"old")
        path = Path(str(_answer(line, 1)[1]))
        line.send(Unload("model", 1))
        eventually(lambda: not path.exists())

    assert (tmp_path / "closed-3").exists()


def test_a_generation_that_is_unloaded_while_it_loads_is_closed_once_it_has_loaded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    order = load_module(write_module(tmp_path, _WEIGHED), content=b"x" * 15)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.send(order)
        line.next(NeedContent)
        line.send(*chunks(order, b"x" * 15), Unload("model", 1))
        (gone,) = line.call(document_call(1, {}))
        (tmp_path / "gate").write_text("open")
        eventually((tmp_path / "closed-15").exists)

    assert gone.kind == "not_loaded"
    assert not any(isinstance(message, Loaded) for message in line.early)


def test_a_generation_that_never_loads_holds_up_no_other_once_it_was_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    module = write_module(tmp_path, _WEIGHED)
    stuck = load_module(module, generation=2, digest="2", content=b"x" * 15)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(module, content=b"old"), b"old")
        line.send(stuck)
        line.next(NeedContent)
        line.send(*chunks(stuck, b"x" * 15))
        eventually((tmp_path / "loading").exists)
        line.send(Unload("model", 2))
        better = line.load(load_module(module, generation=3, digest="3", content=b"better"), b"better")
        served = _answer(line, 1)[0], _answer(line, 3)[0]
        (tmp_path / "gate").write_text("open")
        eventually((tmp_path / "closed-15").exists)
        (gone,) = line.call(document_call(1, {}, generation=2))

    assert better.ok
    assert served == (3, 6)
    assert gone.kind == "not_loaded"


def test_a_generation_whose_content_is_under_way_may_be_unloaded(tmp_path: Path) -> None:
    order = load_module(write_module(tmp_path, _WEIGHED), content=b"12345")
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.send(order)
        line.next(NeedContent)
        line.send(Chunk("model", 1, b"12", False), Unload("model", 1), Chunk("model", 1, b"345", True))
        (gone,) = line.call(document_call(1, {}))
        loaded = line.load(order, b"12345")

    assert gone.kind == "not_loaded"
    assert loaded.ok


def test_a_generation_of_the_same_number_with_another_content_takes_the_place_of_the_first(tmp_path: Path) -> None:
    module = write_module(tmp_path, _WEIGHED)
    with scripted_gateway() as gateway, running_worker(gateway.address):
        line = gateway.welcome()
        line.load(load_module(module, content=b"old"), b"old")
        line.load(load_module(module, digest="2", content=b"newer"), b"newer")
        size = _answer(line, 1)[0]
        eventually((tmp_path / "closed-3").exists)

    assert size == 5

"""Users' endpoints: how they are found and made, and that nothing which their code does gets out of their call."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.inference import Tensor, TensorSpec
from contracts.worker_protocol import Call, Failure, Result
from online_worker.engines.base import ModelSource
from online_worker.engines.python import BrokenModule, PythonEngine, PythonModel
from tests.support.online_workers import write_module
from tests.support.scripted_gateway import document_call, tensor_call


def _load(
    module: Path | None, modules_dir: Path | None = None, content: Path | None = None, **config: Any
) -> PythonModel:
    given = {"entry": {}, "module": None if module is None else str(module), "class": None, **config}
    source = ModelSource("model", given, content, "worker-1", lambda _, __: None)
    return PythonEngine(modules_dir).load(source)


def _answer(model: PythonModel, document: dict[str, Any]) -> Any:
    (result,) = model.infer([document_call(1, document)], together=False)
    assert isinstance(result, Result), result
    return result.document


def _failure(model: PythonModel, call: Call) -> Failure:
    (result,) = model.infer([call], together=False)
    assert isinstance(result, Failure)
    return result


@pytest.fixture(autouse=True)
def _import_state() -> Iterator[None]:
    """No test leaves a module or a folder behind."""
    path, endpoint_modules = list(sys.path), {name for name in sys.modules if name.startswith("endpoint_module_")}
    yield
    sys.path[:] = path
    for name in {name for name in sys.modules if name.startswith("endpoint_module_")} - endpoint_modules:
        del sys.modules[name]


_STEPS = """
    class Steps(Endpoint):
        version = "1.2"
        def load(self, content): self.base = int(content.read_text())
        def warm_up(self): self.base += 1
        def preprocess(self, inputs): return inputs["a"] * 10
        def predict(self, prepared): return prepared + self.base
        def postprocess(self, prediction): return {"answer": np.int64(prediction)}
"""


def test_an_endpoint_is_loaded_warmed_and_run_through_its_three_steps(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_text("5")

    model = _load(write_module(tmp_path, _STEPS), content=content)

    assert model.version == "1.2"
    assert _answer(model, {"a": 2}) == {"answer": 26}


def test_the_entry_of_the_configuration_lies_over_the_defaults_of_the_module(tmp_path: Path) -> None:
    module = write_module(
        tmp_path,
        """
        _CONFIG = {"SIZE": 1, "NAME": "default"}
        class Shows(Endpoint):
            def predict(self, prepared): return [dict(self.context.config), self.context.name, self.context.worker_id]
        """,
    )

    model = _load(module, entry={"SIZE": 2, "NR_WORKERS": 3})

    assert _answer(model, {}) == [{"SIZE": 2, "NAME": "default", "NR_WORKERS": 3}, "model", "worker-1"]


_TWO = """
    class Base(Endpoint):
        def predict(self, prepared): return type(self).__name__
    class Other(Base): pass
"""


@pytest.mark.parametrize(
    ("config", "name"),
    [({"class": "Base"}, "Base"), ({"class": "Missing", "classes": ["Missing", "Other", "Base"]}, "Other")],
)
def test_a_class_is_found_by_its_name(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    assert _answer(_load(write_module(tmp_path, _TWO), **config), {}) == name


def test_the_only_class_is_found_without_a_name_and_an_imported_one_does_not_count(tmp_path: Path) -> None:
    write_module(tmp_path, _TWO, name="neighbour_of_one")
    module = write_module(tmp_path, "from neighbour_of_one import Base\nclass Own(Base): pass\n")

    model = _load(module, **{"class": "NobodysName"})

    assert _answer(model, {}) == "Own"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (_TWO, r"must define a class Wanted derived from Endpoint; there are Base, Other\."),
        ("class Wanted: pass", r"must define a class Wanted derived from Endpoint; there is none\."),
        ("_CONFIG = []\nclass Wanted(Endpoint): pass", r"_CONFIG of .* must be a dict\."),
    ],
)
def test_a_module_without_its_endpoint_is_refused_with_a_sentence(tmp_path: Path, code: str, sentence: str) -> None:
    with pytest.raises(BrokenModule, match=sentence):
        _load(write_module(tmp_path, code), **{"class": "Wanted"})


def test_a_module_that_is_nowhere_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(BrokenModule, match=r"There is no .*/none\.py on this worker's host"):
        _load(tmp_path / "none.py")
    with pytest.raises(BrokenModule, match="names no module"):
        _load(None)


def test_modules_are_looked_for_in_the_folder_of_this_host_if_it_has_one(tmp_path: Path) -> None:
    write_module(tmp_path, _TWO)

    model = _load(Path("/on/the/gateways/host/model.py"), modules_dir=tmp_path, **{"class": "Other"})

    assert _answer(model, {}) == "Other"


def test_changed_code_is_read_afresh_with_its_neighbours_while_the_old_goes_on(tmp_path: Path) -> None:
    code = (
        "from neighbour_that_changes import VALUE\nclass Own(Endpoint):\n    def predict(self, _): return [VALUE, {}]\n"
    )
    neighbour = tmp_path / "neighbour_that_changes.py"
    neighbour.write_text("VALUE = 1")
    old = _load(write_module(tmp_path, code.format(1)))

    neighbour.write_text("VALUE = 2")
    new = _load(write_module(tmp_path, code.format(2)))

    assert (_answer(old, {}), _answer(new, {})) == ([1, 1], [2, 2])


def test_nothing_of_a_module_is_left_when_its_last_model_is_closed(tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    module = write_module(
        tmp_path, "class Own(Endpoint):\n    def close(self): Path(__file__).with_name('closed').touch()\n"
    )
    models = [_load(module), _load(module)]

    models[0].close()
    folder_is_still_searched = str(tmp_path) in sys.path
    models[1].close()

    assert folder_is_still_searched
    assert (tmp_path / "closed").exists()
    assert sys.path == path
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    "code", ["1 / 0", "raise SystemExit(3)", "class Own(Endpoint):\n    def load(self, _): 1 / 0\n"]
)
def test_nothing_of_a_module_is_left_when_it_does_not_load(tmp_path: Path, code: str) -> None:
    path, modules = list(sys.path), set(sys.modules)

    with pytest.raises((ZeroDivisionError, SystemExit)):
        _load(write_module(tmp_path, code))

    assert sys.path == path
    assert set(sys.modules) == modules


_RAISES = """
    class BadText(Exception):
        def __str__(self): raise RuntimeError
    class Raises(Endpoint):
        def predict(self, prepared):
            raise eval(prepared["error"])
"""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("ValueError('no')", "model_failed", "ValueError: no"),
        ("SystemExit(3)", "model_failed", "SystemExit: 3"),
        ("KeyboardInterrupt()", "model_failed", "KeyboardInterrupt"),
        ("GeneratorExit()", "model_failed", "GeneratorExit"),
        ("OSError(28, 'No space left on device')", "model_failed", "OSError: [Errno 28] No space left on device"),
        ("BadText()", "model_failed", "BadText"),
        ("ValueError('\\ud800')", "model_failed", "ValueError: \\ud800"),
        ("InvalidInput('a vector has two numbers')", "invalid_input", "a vector has two numbers"),
    ],
)
def test_whatever_a_model_raises_fails_its_call_and_says_why(
    tmp_path: Path, error: str, kind: str, message: str
) -> None:
    model = _load(write_module(tmp_path, _RAISES))

    failure = _failure(model, document_call(7, {"error": error}))

    assert (failure.id, failure.kind, failure.message) == (7, kind, message)
    assert "in predict" in failure.trace


def test_an_answer_that_is_not_json_fails_its_call(tmp_path: Path) -> None:
    model = _load(write_module(tmp_path, "class Own(Endpoint):\n    def predict(self, _): return {'a': {1, 2}}\n"))

    failure = _failure(model, document_call(1, {}))

    assert failure.kind == "model_failed"
    assert "there is a set in it" in failure.message


def test_an_endpoint_may_answer_nan_and_change_its_answer_afterwards(tmp_path: Path) -> None:
    model = _load(
        write_module(
            tmp_path,
            """
            class Own(Endpoint):
                answer = {"n": 0, "nan": float("nan")}
                def predict(self, _):
                    self.answer["n"] += 1
                    return self.answer
            """,
        )
    )

    results = model.infer([document_call(1, {}), document_call(2, {})], together=False)

    assert [result.document["n"] for result in results if isinstance(result, Result)] == [1, 2]


_BATCH = """
    class Batch(Endpoint):
        def preprocess(self, inputs):
            if "a" not in inputs: raise InvalidInput("a is missing")
            return inputs["a"]
        def predict_batch(self, prepared):
            return np.array([[1 / one, len(prepared)] for one in prepared])
"""


def test_calls_are_predicted_together_and_an_input_that_is_refused_stays_out(tmp_path: Path) -> None:
    model = _load(write_module(tmp_path, _BATCH))

    results = model.infer([document_call(1, {"a": 2}), document_call(2, {}), document_call(3, {"a": 4})], together=True)

    assert [result.id for result in results] == [1, 2, 3]
    assert [result.document for result in results if isinstance(result, Result)] == [[0.5, 2.0], [0.25, 2.0]]
    assert isinstance(results[1], Failure)
    assert results[1].message == "a is missing"


def test_one_input_that_breaks_the_batch_fails_only_its_own_call(tmp_path: Path) -> None:
    model = _load(write_module(tmp_path, _BATCH))

    results = model.infer([document_call(number, {"a": number % 3}) for number in range(4)], together=True)

    assert [type(result) for result in results] == [Failure, Result, Result, Failure]
    assert isinstance(results[0], Failure)
    assert results[0].message == "ZeroDivisionError: division by zero"


def test_an_endpoint_that_predicts_batches_alone_also_answers_one_call(tmp_path: Path) -> None:
    assert _answer(_load(write_module(tmp_path, _BATCH)), {"a": 2}) == [0.5, 1.0]


def test_a_batch_with_too_few_answers_fails_each_of_its_calls(tmp_path: Path) -> None:
    model = _load(write_module(tmp_path, "class Own(Endpoint):\n    def predict_batch(self, prepared): return []\n"))

    results = model.infer([document_call(1, {}), document_call(2, {})], together=True)

    assert [result.message for result in results if isinstance(result, Failure)] == [
        "TypeError: predict_batch() gave 0 answers for 1 inputs."
    ] * 2


_TENSORS = """
    class Doubles(Endpoint):
        inputs = (TensorSpec("x", "FP32", (-1, 2)),)
        def predict(self, prepared):
            prepared["x"] *= 2
            return {"y": prepared["x"], "names": ["a", "b"]}
"""
_X = Tensor("x", "FP32", [1, 2], np.array([1, 2], "<f4").tobytes())


def test_tensors_go_in_and_out_and_may_be_changed_in_place(tmp_path: Path) -> None:
    model = _load(write_module(tmp_path, _TENSORS))

    (result,) = model.infer([tensor_call(1, _X)], together=False)

    assert isinstance(result, Result)
    assert result.tensors == [
        Tensor("y", "FP32", [1, 2], np.array([2, 4], "<f4").tobytes()),
        Tensor("names", "BYTES", [2], b"\1\0\0\0a\1\0\0\0b"),
    ]
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 2)),)


def test_only_the_outputs_that_a_call_asks_for_are_sent(tmp_path: Path) -> None:
    model = _load(write_module(tmp_path, _TENSORS))

    (result,) = model.infer([tensor_call(1, _X, outputs=("y",))], together=False)
    failure = _failure(model, tensor_call(1, _X, outputs=("z",)))

    assert isinstance(result, Result)
    assert [tensor.name for tensor in result.tensors or []] == ["y"]
    assert (failure.kind, failure.message) == ("invalid_input", "The endpoint has no output 'z'; it has 'y', 'names'.")


@pytest.mark.parametrize(
    ("code", "call", "kind", "sentence"),
    [
        (
            _TENSORS,
            tensor_call(1, Tensor("x", "FP32", [2], b"12345678")),
            "invalid_input",
            "must be FP32 of shape [-1, 2]",
        ),
        (_TENSORS, tensor_call(1, Tensor("x", "FP32", [1, 2], b"1234")), "invalid_input", "has 4 bytes"),
        (_STEPS.replace("load", "skip"), tensor_call(1, _X), "invalid_input", "declares no tensors"),
        (_TENSORS, Call(1, "model", 1, None, None, []), "invalid_input", "neither a document nor tensors"),
        (
            _TENSORS.replace("return", "return 1 #"),
            tensor_call(1, _X),
            "model_failed",
            "with a dict of arrays, not a int",
        ),
        (_TENSORS.replace('"a", "b"', "1j"), tensor_call(1, _X), "model_failed", "elements of type complex128"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_a_sentence(
    tmp_path: Path, code: str, call: Call, kind: str, sentence: str
) -> None:
    code = code.replace("warm_up", "skip_warm_up")

    failure = _failure(_load(write_module(tmp_path, code)), call)

    assert failure.kind == kind
    assert sentence in failure.message

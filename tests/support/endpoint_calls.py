"""Calls to a model that is loaded here and now, without worker and gateway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contracts.worker_protocol import Call, Failure, Result
from models_examples.build import ROOT
from online_worker.engines.base import LoadedModel, ModelSource
from online_worker.engines.python import PythonEngine
from online_worker.engines.tensors import to_array, to_tensor


def example_endpoint(folder: str, content: Path | None) -> LoadedModel:
    """The endpoint of an example, loaded as a worker loads it."""
    config: Mapping[str, Any] = {"entry": {}, "module": str(ROOT / folder / "endpoint.py"), "class": None}
    return PythonEngine(None).load(ModelSource(folder, config, content, "worker-1", lambda *_: None))


def asked(model: LoadedModel, document: dict[str, Any]) -> Any:
    """The document that answers this one."""
    return _answered(model, Call(1, "tested", 1, document, None, [])).document


def asked_with_tensors(model: LoadedModel, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays that answer these."""
    tensors = [to_tensor(name, array) for name, array in arrays.items()]
    answer = _answered(model, Call(1, "tested", 1, None, tensors, []))
    return {tensor.name: to_array(tensor) for tensor in answer.tensors or []}


def refused(model: LoadedModel, document: dict[str, Any]) -> str:
    """Why the caller's document is not taken."""
    [failure] = model.infer([Call(1, "tested", 1, document, None, [])], together=False)
    assert isinstance(failure, Failure), failure
    assert failure.kind == "invalid_input", failure
    return failure.message


def _answered(model: LoadedModel, call: Call) -> Result:
    [result] = model.infer([call], together=False)
    assert isinstance(result, Result), result
    return result

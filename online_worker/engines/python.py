"""Serves what users write: a subclass of :class:`online_worker.endpoint.Endpoint` in a Python file."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contracts.inference import InvalidInput, Tensor, TensorSpec
from contracts.worker_protocol import Call, Failure, Result
from online_worker.endpoint import Endpoint, EndpointContext
from online_worker.engines.base import ModelSource
from online_worker.engines.failures import failure_of
from online_worker.engines.modules import ModuleFile
from online_worker.engines.tensors import check, plain, to_array, to_tensor


class BrokenModule(Exception):
    """The module is not there, or holds no endpoint."""


class PythonEngine:
    """Loads endpoints from their modules."""

    def __init__(self, modules_dir: Path | None) -> None:
        self._modules_dir = modules_dir
        """Where modules are looked for instead of where the gateway has them."""

    def load(self, source: ModelSource) -> "PythonModel":
        """Load and warm one generation; see :class:`online_worker.engines.base.Engine`."""
        file = ModuleFile(self._path(source.config.get("module")))
        try:
            endpoint = self._endpoint(source, file)
            endpoint.load(source.content)
            endpoint.warm_up()
            return PythonModel(endpoint, file)
        except BaseException:
            file.release()
            raise

    def _path(self, module: str | None) -> Path:
        if not module:
            raise BrokenModule("The endpoint names no module: give MODULE the path of the file with its class.")
        path = Path(module) if self._modules_dir is None else self._modules_dir / Path(module).name
        if not path.is_file():
            raise BrokenModule(
                f"There is no {path} on this worker's host; put it there, or say with MODULES_DIR where modules lie."
            )
        return path

    def _endpoint(self, source: ModelSource, file: ModuleFile) -> Endpoint:
        defaults = getattr(file.module, "_CONFIG", {})
        if not isinstance(defaults, Mapping):
            raise BrokenModule(f"_CONFIG of {file.module.__file__} must be a dict.")
        context = EndpointContext(
            name=source.endpoint,
            config={**defaults, **source.config.get("entry", {})},
            worker_id=source.worker_id,
            notify=source.notify,
        )
        names = [source.config.get("class"), *source.config.get("classes", ())]
        return _endpoint_class(file, [name for name in names if name]).create(context)


def _endpoint_class(file: ModuleFile, names: Sequence[str]) -> type[Endpoint]:
    """The endpoint that a module defines: the first of these names that there is, else the only one."""
    for name in names:
        named = getattr(file.module, name, None)
        if inspect.isclass(named) and issubclass(named, Endpoint):
            return named
    defined = [
        kind
        for kind in vars(file.module).values()
        if inspect.isclass(kind) and issubclass(kind, Endpoint) and kind.__module__ == file.module.__name__
    ]
    if len(defined) == 1:
        return defined[0]
    there = f"there are {', '.join(kind.__name__ for kind in defined)}" if defined else "there is none"
    wanted = f"a class {names[0]}" if names else "exactly one class"
    raise BrokenModule(f"{file.module.__file__} must define {wanted} derived from Endpoint; {there}.")


class PythonModel:
    """One generation of a user's endpoint."""

    def __init__(self, endpoint: Endpoint, file: ModuleFile) -> None:
        kind = type(endpoint)
        self._endpoint = endpoint
        self._file = file
        self._predicts_batches_alone = (
            kind.predict is Endpoint.predict and kind.predict_batch is not Endpoint.predict_batch
        )
        self.inputs: tuple[TensorSpec, ...] = tuple(endpoint.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(endpoint.outputs)
        self.version = None if endpoint.version is None else str(endpoint.version)

    def infer(self, calls: Sequence[Call], *, together: bool) -> list[Result | Failure]:
        """See :class:`online_worker.engines.base.LoadedModel`."""
        if together and len(calls) > 1:
            return self._together(calls)
        return [_guarded(call.id, self._answer, call) for call in calls]

    def close(self) -> None:
        """Let go of the endpoint and its module."""
        try:
            self._endpoint.close()
        finally:
            self._file.release()
            del self._endpoint, self._file

    def _together(self, calls: Sequence[Call]) -> list[Result | Failure]:
        """One prediction for all; each call's time is that of the whole, since it waited for all of it."""
        begin = time.perf_counter()
        inputs = {call.id: _guarded(call.id, self._prepare, call) for call in calls}
        ready = [call for call in calls if not isinstance(inputs[call.id], Failure)]
        predictions = _guarded(0, self._predict_batch, [inputs[call.id] for call in ready])
        if isinstance(predictions, Failure):  # one bad input must not fail the others: each alone shows which it is
            answers = {call.id: _guarded(call.id, self._finish, call, inputs[call.id], begin) for call in ready}
        else:
            answers = {
                call.id: _guarded(call.id, self._result, call, prediction, begin)
                for call, prediction in zip(ready, predictions, strict=True)
            }
        return [answers.get(call.id, inputs[call.id]) for call in calls]

    def _answer(self, call: Call) -> Result:
        begin = time.perf_counter()
        return self._finish(call, self._prepare(call), begin)

    def _finish(self, call: Call, prepared: Any, begin: float) -> Result:
        return self._result(call, self._predict(prepared), begin)

    def _prepare(self, call: Call) -> Any:
        return self._endpoint.preprocess(self._input(call))

    def _predict(self, prepared: Any) -> Any:
        if self._predicts_batches_alone:
            return self._predict_batch([prepared])[0]
        return self._endpoint.predict(prepared)

    def _predict_batch(self, prepared: list[Any]) -> Sequence[Any]:
        if not prepared:
            return []
        predictions = self._endpoint.predict_batch(prepared)
        if len(predictions) != len(prepared):
            raise TypeError(f"predict_batch() gave {len(predictions)} answers for {len(prepared)} inputs.")
        return predictions

    def _input(self, call: Call) -> dict[str, Any]:
        if call.document is not None:
            return call.document
        if call.tensors is None:
            raise InvalidInput("The call brings neither a document nor tensors.")
        if not self.inputs:
            raise InvalidInput("This endpoint declares no tensors; send it a JSON document.")
        check(call.tensors, self.inputs)
        # A copy: an endpoint may well scale its input in place, and the tensor's own bytes cannot be written.
        return {tensor.name: np.array(to_array(tensor)) for tensor in call.tensors}

    def _result(self, call: Call, prediction: Any, begin: float) -> Result:
        answer = self._endpoint.postprocess(prediction)
        if call.tensors is None:
            return Result(call.id, plain(answer), None, time.perf_counter() - begin)
        return Result(call.id, None, _tensors(answer, call.outputs), time.perf_counter() - begin)


def _guarded(call_id: int, step: Callable[..., Any], *given: Any) -> Any:
    """What the step gives, or the Failure of the call.

    A user's code may raise whatever it likes, SystemExit and KeyboardInterrupt included. That ends its call and never
    the worker: so this is one of the few places that catch everything.
    """
    try:
        return step(*given)
    except BaseException as error:  # noqa: BLE001 - see above
        return failure_of(call_id, error)


def _tensors(answer: Any, wanted: Sequence[str]) -> list[Tensor]:
    if not isinstance(answer, Mapping):
        raise TypeError(f"A call with tensors must be answered with a dict of arrays, not a {type(answer).__name__}.")
    for name in wanted:
        if name not in answer:
            known = ", ".join(f"'{one}'" for one in answer)
            raise InvalidInput(f"The endpoint has no output '{name}'; it has {known}.")
    return [to_tensor(str(name), np.asarray(answer[name])) for name in wanted or answer]

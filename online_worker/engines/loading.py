"""Engines by their names."""

from online_worker.config import OnlineWorkerSettings
from online_worker.engines.base import Engine
from online_worker.engines.echo import EchoEngine
from online_worker.engines.python import PythonEngine


class UnknownEngine(Exception):
    """The worker has no such engine."""


def engine_for(name: str, settings: OnlineWorkerSettings) -> Engine:
    """The engine.

    Raises
    ------
    UnknownEngine
        There is none of this name, or its libraries are not installed here.
    """
    match name:
        case "python":
            return PythonEngine(settings.modules_dir)
        case "echo":
            return EchoEngine()
        case "onnx":
            return _onnx(settings)
        case _:
            raise UnknownEngine(f"This worker has no engine '{name}'; it has python, onnx and echo.")


def _onnx(settings: OnlineWorkerSettings) -> Engine:
    try:
        from online_worker.engines.onnx import OnnxEngine
    except ModuleNotFoundError as error:
        raise UnknownEngine(
            f"This worker cannot serve ONNX models: {error}. Install onnx and onnxruntime where it runs."
        ) from error
    return OnnxEngine(settings.onnx_provider)

"""What users install: a typed Python client of the platform and the command ``infer``.

>>> from inference_client import InferenceClient
>>> with InferenceClient("https://inference.example.org") as client:  # doctest: +SKIP
...     client.run("segment-ct", ["scan.dcm"], Path("masks.zip"))

The names below are loaded when first used, so that ``infer --help`` does not wait for an HTTP library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_client.client import InferenceClient, RunResult
    from inference_client.errors import (
        AnswerNotUnderstood,
        ClientError,
        InputRefused,
        OutputDamaged,
        OutputMissing,
        RequestRefused,
        ServerUnreachable,
        SubmissionUncertain,
        TaskCancelled,
        TaskFailed,
        TaskNotFound,
        TaskUnfinished,
        WaitTimedOut,
    )
    from inference_client.model_calls import Mountpoints
    from inference_client.packing import packed
    from inference_client.unpacking import unpack

__all__ = [
    "AnswerNotUnderstood",
    "ClientError",
    "InferenceClient",
    "InputRefused",
    "Mountpoints",
    "OutputDamaged",
    "OutputMissing",
    "RequestRefused",
    "RunResult",
    "ServerUnreachable",
    "SubmissionUncertain",
    "TaskCancelled",
    "TaskFailed",
    "TaskNotFound",
    "TaskUnfinished",
    "WaitTimedOut",
    "packed",
    "unpack",
]

_MODULES = {
    "InferenceClient": "client",
    "RunResult": "client",
    "Mountpoints": "model_calls",
    "packed": "packing",
    "unpack": "unpacking",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)

"""What the operator and the caller are told of an exception that a model's code raised."""

import traceback
from contextlib import suppress

from contracts.inference import InvalidInput
from contracts.worker_protocol import Failure

_MOST_MESSAGE = 4_000
_MOST_TRACE = 40_000
"""Characters: an exception may quote its whole input, and each failed call carries it."""


def failure_of(call_id: int, error: BaseException) -> Failure:
    """Why a call has no answer, out of what its model raised."""
    message, trace = told(error)
    if isinstance(error, InvalidInput):
        return Failure(call_id, "invalid_input", sendable(error.message, _MOST_MESSAGE), trace)
    return Failure(call_id, "model_failed", message, trace)


def told(error: BaseException) -> tuple[str, str]:
    """The exception's kind and text, and its trace."""
    text = ""
    with suppress(Exception):  # a user's exception may have a __str__ that raises
        text = str(error)
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return sendable(message, _MOST_MESSAGE), sendable(trace[-_MOST_TRACE:], _MOST_TRACE)


def sendable(text: str, most: int) -> str:
    """The text as it can travel: names of files may hold bytes that UTF-8 has no place for."""
    return text[:most].encode("utf-8", "backslashreplace").decode("utf-8")

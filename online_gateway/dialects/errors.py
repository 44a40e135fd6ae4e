"""The HTTP status and headers of each error; the bodies are each dialect's own."""

from collections.abc import Mapping

from contracts.errors import PlatformError, Unavailable
from contracts.inference import (
    DeadlineExceeded,
    EndpointNotReady,
    InvalidInput,
    ModelFailed,
    QueueFull,
    SwapFailed,
    SwapReport,
    UnknownEndpoint,
    WorkerLost,
)
from online_gateway.dialects.base import Headers
from service_kit.http_app import HTTP_STATUS, RETRY_AFTER_SECONDS

RETRY_LATER: Headers = ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),)
"""What goes with a 503."""

_STATUS: Mapping[type[PlatformError], int] = {
    **HTTP_STATUS,
    InvalidInput: 422,
    UnknownEndpoint: 404,
    EndpointNotReady: 503,
    QueueFull: 429,
    DeadlineExceeded: 504,
    WorkerLost: 502,
    ModelFailed: 500,
    SwapFailed: 422,
}


def status_of(error: PlatformError) -> int:
    """The HTTP status that the error's class, or its nearest ancestor, stands for."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def headers_of(error: PlatformError) -> Headers:
    """When to come back, in seconds, where the error is one of the moment."""
    if isinstance(error, QueueFull):
        return ((b"retry-after", str(error.retry_after).encode()),)
    if isinstance(error, Unavailable):
        return RETRY_LATER
    return ()


def refusals(report: SwapReport) -> str:
    """Why a generation was not accepted, with what each worker said of it."""
    said = [outcome.message for outcome in report.workers if not outcome.ok]
    return " ".join([report.message, *dict.fromkeys(said)])


def generation_header(generation: int) -> tuple[bytes, bytes]:
    """Which generation gave the answer."""
    return (b"model-generation", b"%d" % generation)

"""The HTTP side of what may go wrong, as far as the dialects agree; each chooses its own bodies."""

from contracts.errors import PlatformError, Unavailable
from contracts.inference import DeadlineExceeded, ModelFailed, QueueFull, SwapFailed, WorkerLost
from service_kit import http_app

RETRY_AFTER_SECONDS = 1
"""What a 503 asks a client to wait: a worker that died is back about then."""

_STATUS: dict[type[PlatformError], int] = {
    QueueFull: 429,
    ModelFailed: 500,
    WorkerLost: 502,
    DeadlineExceeded: 504,
    SwapFailed: 422,
}


def status_of(error: PlatformError) -> int:
    """The HTTP status that the error stands for."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None) or http_app.status_of(
        error
    )


def headers_of(error: PlatformError) -> tuple[tuple[bytes, bytes], ...]:
    """Retry-After, in seconds, for what may be tried again."""
    if isinstance(error, QueueFull):
        return ((b"retry-after", b"%d" % error.retry_after),)
    if isinstance(error, Unavailable):
        return ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)
    return ()

"""What the dialects make of the platform's errors in HTTP."""

import pytest

from contracts.errors import Conflict, Forbidden, PlatformError, Unauthorized, UploadTooLarge
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
from online_gateway.dialects.errors import RETRY_LATER, headers_of, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput(""), 422),
        (UnknownEndpoint(""), 404),
        (EndpointNotReady(""), 503),
        (QueueFull("", retry_after=3), 429),
        (DeadlineExceeded(""), 504),
        (WorkerLost(""), 502),
        (ModelFailed(""), 500),
        (SwapFailed(SwapReport("", 2, accepted=False, workers=[])), 422),
        (UploadTooLarge(""), 413),
        (Conflict(""), 409),
        (Unauthorized(""), 401),
        (Forbidden(""), 403),
        (PlatformError(""), 500),
    ],
)
def test_each_error_has_its_status(error: PlatformError, status: int) -> None:
    assert status_of(error) == status


def test_only_what_may_be_tried_again_says_when() -> None:
    assert headers_of(QueueFull("", retry_after=3)) == ((b"retry-after", b"3"),)
    assert headers_of(EndpointNotReady("")) == RETRY_LATER == ((b"retry-after", b"2"),)
    assert headers_of(ModelFailed("")) == ()

"""Waiting out 429: whoever answers so has counted the request and begun none of it, so that any call may come again."""

from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import TypeVar

from inference_client.errors import RequestRefused
from inference_client.pacing import Backoff, Deadline

T = TypeVar("T")


def outlasting_crowds(call: Callable[[], T], patience: timedelta) -> T:
    """Make the call again, with growing pauses of at least the server's Retry-After, while it is refused with 429.

    Raises
    ------
    RequestRefused
        The next try would come after the end of the patience; or any other refusal, at once.
    """
    deadline = Deadline(patience)
    backoff = Backoff()
    while True:
        try:
            return call()
        except RequestRefused as error:
            if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                raise
            pause = backoff.pause(error.retry_after)
            if pause >= deadline.remaining:
                raise
            deadline.pause(pause)

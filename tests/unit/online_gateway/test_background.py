"""Tasks that run beside whoever began them."""

import asyncio

from structlog.testing import capture_logs

from contracts.errors import Unavailable
from online_gateway.background import Background


def test_a_bug_in_a_task_that_nobody_awaits_is_logged_and_a_known_error_is_its_callers() -> None:
    async def fails(error: Exception) -> None:
        raise error

    async def play() -> None:
        background = Background()
        tasks = [background.spawn(fails(error)) for error in (Unavailable("not now"), ZeroDivisionError("a bug"))]
        await asyncio.wait(tasks)
        await asyncio.sleep(0)

    with capture_logs() as logs:
        asyncio.run(play())

    assert [(line["event"], repr(line["exc_info"])) for line in logs] == [
        ("background_task_failed", "ZeroDivisionError('a bug')")
    ]

"""Health routes: live says that the process answers, ready names each dependency and its state.

A server that leaves is alive and not ready, whatever its dependencies do: whoever spreads requests looks elsewhere.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from contracts.errors import PlatformError
from contracts.routes import HEALTH_LIVE, HEALTH_READY
from service_kit.lifecycle import Departure

Check = Callable[[], Awaitable[None]]
"""Passes when the dependency works, raises when it does not."""

_CHECK_SECONDS = 3.0


async def _state_of(check: Check) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer within {_CHECK_SECONDS:g} s"
    except (PlatformError, OSError) as error:
        return str(error) or type(error).__name__
    return "ok"


def health_router(
    checks: Mapping[str, Check], optional: Mapping[str, Check] | None = None, departure: Departure | None = None
) -> APIRouter:
    """Routes for liveness and readiness.

    ``checks`` decide over 200 or 503; ``optional`` ones are shown and do not: a broker that is away refuses no task.
    ``departure`` tells whether this server leaves.
    """
    router = APIRouter(tags=["health"])

    @router.get(HEALTH_LIVE, summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(HEALTH_READY, summary="Each dependency with its state; 503 unless all required ones work")
    async def ready() -> JSONResponse:
        if departure is not None and departure.has_begun:
            return JSONResponse({"status": "leaving", "dependencies": {}}, 503)
        shown = {**checks, **(optional or {})}
        states = dict(zip(shown, await asyncio.gather(*map(_state_of, shown.values())), strict=True))
        is_ready = all(states[name] == "ok" for name in checks)
        return JSONResponse(
            {"status": "ok" if is_ready else "unavailable", "dependencies": states}, 200 if is_ready else 503
        )

    return router

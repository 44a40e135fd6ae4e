"""Whether the gateway lives, and whether what it serves can be called now.

It is ready when a call to every endpoint would find a worker that holds the endpoint's generation; an endpoint that is
switched off, or that waits for its first upload, keeps nobody waiting.
"""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from contracts.routes import HEALTH_LIVE, HEALTH_READY
from online_gateway.information import EndpointInfo
from online_gateway.overview import Overview
from online_gateway.supervisor.support import SupportProcesses
from service_kit.http_app import RETRY_AFTER_SECONDS
from service_kit.lifecycle import Departure

_LATER = {"Retry-After": str(RETRY_AFTER_SECONDS)}


def health_router(overview: Overview, supports: SupportProcesses, departure: Departure) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["health"])

    @router.get(HEALTH_LIVE, summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(HEALTH_READY, summary="Each endpoint with its state; 503 unless all of them can be called")
    async def ready() -> JSONResponse:
        if departure.has_begun:
            return JSONResponse({"status": "leaving", "endpoints": {}}, 503, _LATER)
        endpoints = overview.all()
        is_ready = not any(info.keeps_callers_waiting for info in endpoints)
        body: dict[str, Any] = {
            "status": "ok" if is_ready else "unavailable",
            "endpoints": {info.name: _shown(info) for info in endpoints},
        }
        if states := supports.states():
            body["support_processes"] = states
        return JSONResponse(body, 200) if is_ready else JSONResponse(body, 503, _LATER)

    return router


def _shown(info: EndpointInfo) -> dict[str, Any]:
    shown = {"state": info.state, "workers": len(info.workers), "generation": info.generation}
    return shown if info.state == "ready" else {**shown, "reason": info.reason}

"""Builds and runs online_gateway."""

import gc
import socket
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import NoReturn

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import PlatformError
from online_gateway.config import OnlineGatewaySettings
from online_gateway.dialects.hot_door import HotDoor
from online_gateway.endpoint_config import GatewayFile, read_gateway_file
from online_gateway.health import health_router
from online_gateway.wiring import Wiring
from service_kit import lifecycle, logging
from service_kit.http_app import create_app as create_http_app
from service_kit.lifecycle import Departure
from service_kit.settings import WRONG_CONFIGURATION, end_misconfigured, load

_CRASHED = 1
_YOUNG_OBJECTS = 10_000
"""New objects between two collections."""
_WELCOME = "Endpoints that stay in memory, answered in one request, in the wire formats that their users come from."


def http_app(wiring: Wiring, name: str, departure: Departure) -> FastAPI:
    """All routes, with the description of them."""
    app = create_http_app(name, _WELCOME, redirect_slashes=False)
    app.include_router(health_router(wiring.overview, wiring.supports, departure))
    for dialect in wiring.dialects:
        app.include_router(dialect.router)
    return app


class _Running:
    """Starts and stops the parts when the server starts and stops, and remembers why they could not start."""

    def __init__(self, app: ASGIApp, wiring: Wiring) -> None:
        self._app = app
        self._wiring = wiring
        self.trouble: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._wiring.running())
            except (OSError, PlatformError) as error:
                self.trouble = str(error)
                await send({"type": "lifespan.startup.failed", "message": ""})
                return
            _spare_what_stays()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _spare_what_stays() -> None:
    """Leave the modules, routes and models of data made so far out of garbage collections, and let those be rarer.

    Each call makes a dozen objects that end with it. At the interpreter's own thresholds, looking for cycles among them
    and through all that stays took a quarter of the gateway's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


def run(
    settings: OnlineGatewaySettings, listener: socket.socket | None = None, file: GatewayFile | None = None
) -> None:
    """Serve until a stop signal or a call that stops it; ends the process with one line where it cannot start.

    ``file`` is what is served where a program says it; else ENDPOINTS_FILE names it, and without that there is nothing
    but what gets uploaded.
    """
    logging.configure("online_gateway", settings.log_level, settings.log_format)
    departure = Departure()
    try:
        bound = listener or lifecycle.bind(settings.host, settings.port)
    except OSError as error:
        end_misconfigured(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}")
    try:
        served = file or _file(settings)
        wiring = Wiring(settings, served, bound.getsockname()[:2], departure.ask)
    except (OSError, PlatformError) as error:
        _end(str(error))
    app = _Running(HotDoor(http_app(wiring, served.server_name, departure), wiring.dialects), wiring)
    try:
        lifecycle.serve(
            app,
            bound,
            departure=departure,
            leave=timedelta(seconds=settings.leave_seconds),
            drain=timedelta(seconds=settings.call_drain_seconds),
        )
    finally:
        if app.trouble is not None:
            _end(app.trouble)
    if wiring.has_failed:
        raise SystemExit(_CRASHED)


def _file(settings: OnlineGatewaySettings) -> GatewayFile:
    return GatewayFile() if settings.endpoints_file is None else read_gateway_file(settings.endpoints_file)


def _end(sentence: str) -> NoReturn:
    sys.stderr.write(f"online_gateway: {sentence}\n")
    raise SystemExit(WRONG_CONFIGURATION)


def main() -> None:
    """Entry point of the service."""
    run(load(OnlineGatewaySettings))

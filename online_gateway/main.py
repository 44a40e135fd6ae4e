"""Builds and runs online_gateway."""

import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NoReturn

from fastapi import FastAPI
from starlette.types import ASGIApp

from contracts.errors import PlatformError
from online_gateway.config import OnlineGatewaySettings
from online_gateway.dialects.base import HotDoor
from online_gateway.endpoint_config import GatewayFile, read_gateway_file
from online_gateway.health import health_router
from online_gateway.wiring import Address, Wiring
from service_kit import lifecycle, logging
from service_kit.http_app import create_app as create_http_app
from service_kit.lifecycle import Departure
from service_kit.settings import WRONG_CONFIGURATION, end_misconfigured, load

_WELCOME = "Endpoints that stay in memory, answered in one request, in the wire formats that their users come from."


def create_app(
    settings: OnlineGatewaySettings,
    file: GatewayFile,
    address: Address,
    request_shutdown: Callable[[], None],
    departure: Departure | None = None,
) -> ASGIApp:
    """The application for the address on which it is going to listen.

    Raises
    ------
    OSError, PlatformError
        The data folder cannot be used.
    """
    way_out = departure or Departure()
    wiring = Wiring(settings, file, address, request_shutdown)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with wiring.running():
            yield

    app = create_http_app(file.server_name, _WELCOME, lifespan, redirect_slashes=False)
    app.include_router(health_router(wiring.overview, wiring.supports, way_out))
    for dialect in wiring.dialects:
        app.include_router(dialect.router)
    return HotDoor(app, wiring.dialects)


def run(
    settings: OnlineGatewaySettings, listener: socket.socket | None = None, file: GatewayFile | None = None
) -> None:
    """Serve until a stop signal; ends the process with one line where it cannot start.

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
        app = create_app(settings, file or _file(settings), bound.getsockname()[:2], _stop_this_process, departure)
    except (OSError, PlatformError) as error:
        _end(str(error))
    lifecycle.serve(
        app,
        bound,
        departure=departure,
        leave=timedelta(seconds=settings.leave_seconds),
        drain=timedelta(seconds=settings.call_drain_seconds),
    )


def _file(settings: OnlineGatewaySettings) -> GatewayFile:
    return GatewayFile() if settings.endpoints_file is None else read_gateway_file(settings.endpoints_file)


def _stop_this_process() -> None:
    signal.raise_signal(signal.SIGTERM)


def _end(sentence: str) -> NoReturn:
    sys.stderr.write(f"online_gateway: {sentence}\n")
    raise SystemExit(WRONG_CONFIGURATION)


def main() -> None:
    """Entry point of the service."""
    run(load(OnlineGatewaySettings))

"""Builds and runs public_api."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from fastapi import FastAPI, Request, Response

from contracts.routes import TASK
from public_api.config import PublicApiSettings
from public_api.relay import Deadlines, Relay
from public_api.routes import WELCOME, door
from service_kit import lifecycle, logging
from service_kit.health import health_router
from service_kit.http_app import create_app as create_http_app
from service_kit.lifecycle import Departure
from service_kit.settings import end_misconfigured, load
from service_kit.shortcut import Shortcut


def create_app(
    settings: PublicApiSettings,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    departure: Departure | None = None,
) -> FastAPI:
    """The application; a factory, so that tests choose settings and deadlines before it is built."""
    way_out = departure or Departure()
    relay = Relay(
        settings.private_api_url,
        settings.internal_token.get_secret_value(),
        settings.max_upload_bytes,
        replace(deadlines, upload_idle=timedelta(seconds=settings.upload_idle_seconds)),
        way_out.drains,
    )

    async def poll(request: Request, _: str) -> Response:
        return await relay.forward(request, request.scope["path"])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.relay = relay
        await relay.open()
        try:
            yield
        finally:
            await relay.close()

    app = create_http_app("InferenceServer", WELCOME, lifespan, redirect_slashes=False)
    app.include_router(health_router({"private_api": relay.check}, departure=way_out))
    app.add_middleware(Shortcut, template=TASK, answer=poll)
    app.include_router(door(model_posts=settings.allow_public_post_model))
    return app


def run(settings: PublicApiSettings, listener: socket.socket | None = None) -> None:
    """Serve until a stop signal; ends the process with one line where the address is not to be had."""
    logging.configure("public_api", settings.log_level, settings.log_format)
    try:
        bound = listener or lifecycle.bind(settings.host, settings.port)
    except OSError as error:
        end_misconfigured(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}")
    departure = Departure()
    lifecycle.serve(
        create_app(settings, departure=departure),
        bound,
        departure=departure,
        leave=timedelta(seconds=settings.leave_seconds),
        drain=timedelta(seconds=settings.transfer_drain_seconds),
    )


def main() -> None:
    """Entry point of the service."""
    run(load(PublicApiSettings))

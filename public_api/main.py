"""Builds and runs public_api."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from public_api.config import PublicApiSettings
from public_api.relay import Relay
from public_api.routes import WELCOME, door
from service_kit import lifecycle, logging
from service_kit.health import health_router
from service_kit.http_app import create_app as create_http_app
from service_kit.settings import load


def create_app(settings: PublicApiSettings) -> FastAPI:
    """The application; a factory, so that tests choose the settings before it is built."""
    relay = Relay(
        settings.private_api_url,
        settings.internal_token.get_secret_value(),
        settings.max_upload_bytes,
        timedelta(seconds=settings.upload_idle_seconds),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.relay = relay
        await relay.open()
        try:
            yield
        finally:
            await relay.close()

    app = create_http_app("InferenceServer", WELCOME, lifespan)
    app.include_router(health_router({"private_api": relay.check}))
    app.include_router(door(model_posts=settings.allow_public_post_model))
    return app


def run(settings: PublicApiSettings, listener: socket.socket | None = None) -> None:
    """Serve until a stop signal."""
    logging.configure("public_api", settings.log_level, settings.log_format)
    lifecycle.serve(create_app(settings), listener or lifecycle.bind(settings.host, settings.port))


def main() -> None:
    """Entry point of the service."""
    run(load(PublicApiSettings))

"""The app and the process."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from fastapi import FastAPI
from pydantic import SecretStr

from contracts.errors import PlatformError, Unavailable
from contracts.routes import TASK
from private_api.config import PrivateApiSettings
from private_api.handlers import internal, public_models, public_tasks
from private_api.handlers.authentication import RequireToken
from private_api.wiring import Wiring
from service_kit.health import health_router
from service_kit.http_app import create_app as create_http_app
from service_kit.lifecycle import bind, serve
from service_kit.logging import configure, get_logger
from service_kit.settings import WRONG_CONFIGURATION, load
from service_kit.shortcut import Shortcut

log = get_logger(__name__)


def create_app(settings: PrivateApiSettings) -> FastAPI:
    """The app; it opens database and folder when it starts, and raises what :class:`Wiring` raises."""
    return build_app(settings.internal_token, lambda: Wiring(settings))


def run(settings: PrivateApiSettings, listener: socket.socket | None = None) -> None:
    """Serve until a stop signal; ends the process with one line where it cannot start."""
    configure("private_api", settings.log_level, settings.log_format)
    try:
        bound = listener or bind(settings.host, settings.port)
        wiring = Wiring(settings)
    except OSError as error:
        _end(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", WRONG_CONFIGURATION)
    except PlatformError as error:
        _end(error.message, 1 if isinstance(error, Unavailable) else WRONG_CONFIGURATION)
    app = build_app(settings.internal_token, lambda: wiring)
    log.info("private_api_starts", address=bound.getsockname())
    serve(app, bound, on_stop=lambda: app.state.loop.call_soon_threadsafe(wiring.wakeups.close))


def _end(sentence: str, status: int) -> NoReturn:
    sys.stderr.write(f"private_api: {sentence}\n")
    raise SystemExit(status)


def main() -> None:
    """Run with the settings of the environment."""
    run(load(PrivateApiSettings))


def build_app(token: SecretStr, opened: Callable[[], Wiring]) -> FastAPI:
    """The app around a wiring that is made, or was made, by the caller; the app closes it when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        wiring = opened()
        app.state.loop = asyncio.get_running_loop()
        app.state.services = wiring.services
        app.include_router(
            health_router(
                {"database": wiring.database.ping},
                {"files": wiring.check_files, **({"broker": wiring.check_broker} if wiring.publisher else {})},
            )
        )
        async with wiring.running():
            yield

    app = create_http_app(
        "private_api", "Models, tasks and files; for the platform's own services.", lifespan, redirect_slashes=False
    )
    app.router.routes.insert(0, public_tasks.POLL_ROUTE)
    for module in (public_tasks, public_models, internal):
        app.include_router(module.router)
    app.add_middleware(Shortcut, template=TASK, answer=public_tasks.answer_poll)
    app.add_middleware(RequireToken, token=token.get_secret_value())
    return app

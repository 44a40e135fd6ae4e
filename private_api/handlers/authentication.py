"""The shared token that every caller but a health check must carry."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import Unauthorized
from service_kit.http_app import error_response

_HEALTH = "/health/"


class RequireToken:
    """Refuses requests without ``Authorization: Bearer <INTERNAL_TOKEN>``."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"].startswith(_HEALTH) or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        refusal = error_response(
            401,
            "The internal token is missing or wrong; INTERNAL_TOKEN must be the same for all services.",
            Unauthorized.code,
            {"WWW-Authenticate": "Bearer"},
        )
        await refusal(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)

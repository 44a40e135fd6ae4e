"""Who may change what is served, and who may stop it.

Where the gateway listens on loopback alone, whoever can reach it may do both, except a page in somebody's browser: it
gives itself away by an Origin, or by the Host under which it was lured here. Beyond loopback the admin token is needed;
``ALLOW_PUBLIC_CHANGES`` opens uploads and the like to everybody, and nothing else.
"""

from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.types import Scope

from contracts.errors import Forbidden, Unauthorized
from online_gateway.config import OnlineGatewaySettings
from service_kit.lifecycle import is_loopback

_BEARER = b"bearer "


class Access:
    """Decides by the request's headers."""

    def __init__(self, settings: OnlineGatewaySettings, *, listens_on_loopback: bool) -> None:
        token = settings.admin_token
        self._token = token.get_secret_value().encode() if token is not None else None
        self._all_may_change = settings.allow_public_changes
        self._listens_on_loopback = listens_on_loopback

    def require_change(self, scope: Scope) -> None:
        """Uploads, weights, deletions, descriptions, loading and unloading.

        Raises
        ------
        Unauthorized
            The admin token is needed and is not there, or is another.
        Forbidden
            No token would do: none is configured, or a web page is calling.
        """
        if self._listens_on_loopback or not self._all_may_change:
            self.require_admin(scope)

    def require_admin(self, scope: Scope) -> None:
        """Starting, stopping and resizing of workers; the end of the gateway.

        Raises
        ------
        Unauthorized, Forbidden
            As above.
        """
        given = _header(scope, b"authorization")
        if self._token is not None and given is not None and self._is_token(given):
            return
        if self._listens_on_loopback:
            _refuse_web_pages(scope)
            return
        if self._token is None:
            raise Forbidden(
                "This gateway listens beyond its own machine and has no ADMIN_TOKEN: set one to allow changes."
            )
        raise Unauthorized("Send the gateway's admin token: 'Authorization: Bearer TOKEN'.")

    @staticmethod
    def require_own_machine(scope: Scope) -> None:
        """What support processes post.

        Raises
        ------
        Forbidden
            The connection comes from another machine, or a web page is calling.
        """
        client, server = scope.get("client"), scope.get("server")
        is_own = client is None or is_loopback(client[0]) or (server is not None and client[0] == server[0])
        if not is_own:
            raise Forbidden("Only processes of the gateway's own machine may post here.")
        _refuse_foreign_pages(scope)

    def _is_token(self, given: bytes) -> bool:
        is_bearer = given[: len(_BEARER)].lower() == _BEARER
        return is_bearer and compare_digest(given[len(_BEARER) :].strip(), self._token or b"")


def _refuse_web_pages(scope: Scope) -> None:
    _refuse_foreign_pages(scope)
    host = _header(scope, b"host")
    if host is not None and not _names_this_machine(f"//{host.decode('latin-1')}"):
        raise Forbidden("Call this gateway by a loopback address, such as 127.0.0.1, or send its admin token.")


def _refuse_foreign_pages(scope: Scope) -> None:
    origin = _header(scope, b"origin")
    if origin is not None and not _names_this_machine(origin.decode("latin-1")):
        raise Forbidden("Web pages of other hosts may not change what is served here.")


def _names_this_machine(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:  # brackets that do not match
        return False


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((bytes(value) for key, value in scope["headers"] if key == name), None)

"""Builds one worker and runs it."""

import os
import secrets
import socket
import time
from datetime import timedelta
from functools import cache, partial
from ipaddress import ip_address
from pathlib import Path

import psutil

from contracts.worker_protocol import Notification
from online_worker.config import OnlineWorkerSettings
from online_worker.contents import Contents
from online_worker.dialer import Dialer
from online_worker.engines.failures import sendable
from online_worker.engines.loading import engine_for
from online_worker.gateway_address import gateway_addresses
from online_worker.handshake import Identity
from online_worker.loader import Loader
from online_worker.loop import Ending, Loop
from service_kit.logging import get_logger

log = get_logger(__name__)

_CLOSING = timedelta(seconds=3)
"""Models may take so long to let go of files and connections when the worker ends."""
_MOST_KIND, _MOST_MESSAGE = 200, 10_000
"""Characters of a notification."""


class Worker:
    """One worker; :meth:`stop` may be called from any thread."""

    def __init__(self, settings: OnlineWorkerSettings, scratch: Path) -> None:
        """``scratch`` is a folder of its own."""
        self.worker_id = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._loader = Loader(cache(partial(engine_for, settings=settings)), self.worker_id, self._notify)
        self._loop = Loop(
            self._loader,
            Contents(scratch),
            drain=timedelta(seconds=settings.call_drain_seconds),
            away=timedelta(seconds=settings.away_seconds),
        )
        identity = Identity(
            pool=settings.endpoint,
            worker_id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            addresses=host_addresses(),
            token=settings.worker_token.get_secret_value(),
        )
        self._dialers = [Dialer(one, identity, self._loop) for one in gateway_addresses(settings.online_gateway)]

    def run(self) -> Ending:
        """Serve until there is a reason to end."""
        self._loader.start()
        try:
            return self._loop.run(self._dialers)
        finally:
            self._loader.stop(_CLOSING)

    def stop(self) -> None:
        """End in order."""
        self._loop.stop()

    def _notify(self, endpoint: str, kind: str, message: str) -> None:
        """Tell every gateway; a model's code calls it, in whatever thread it likes."""
        kind, message = sendable(str(kind), _MOST_KIND), sendable(str(message), _MOST_MESSAGE)
        log.info("notification", endpoint=endpoint, kind=kind, message=message)
        for session in self._loop.sessions():
            session.stream.send(Notification(endpoint, kind, message, time.time()))


def host_addresses() -> list[str]:
    """The addresses by which other hosts may know this one; those of loopback where there are no others."""
    families = {socket.AF_INET, socket.AF_INET6}
    known = [
        ip_address(address.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in families
    ]
    public = [str(address) for address in known if not address.is_loopback and not address.is_link_local]
    return sorted(public) or ["127.0.0.1"]

"""The thread that keeps the connection to one gateway: it dials, shakes hands, and dials again when it was lost."""

import threading
from datetime import timedelta
from typing import Protocol

from contracts.worker_protocol import ProtocolError, Welcome
from online_worker.gateway_address import GatewayAddress
from online_worker.handshake import Identity, RefusedByGateway, shake_hands
from online_worker.models import ModelKey
from online_worker.stream import Stream
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_DIAL = timedelta(seconds=5)
_HANDSHAKE = timedelta(seconds=10)
_FIRST_PAUSE = timedelta(milliseconds=100)
_LONGEST_PAUSE = timedelta(seconds=2)


class Switchboard(Protocol):
    """Where connections go; called in the dialer's thread."""

    def loaded(self) -> dict[str, list[str]]:
        """The digests in memory, by endpoint."""
        ...

    def connected(self, dialer: "Dialer", stream: Stream, welcome: Welcome, bodies: list[bytes]) -> None:
        """A gateway took the worker in; ``bodies`` are frames that came already. :meth:`Dialer.lost` follows."""
        ...

    def refused(self, dialer: "Dialer", message: str) -> None:
        """A gateway never will; the dialer has ended."""
        ...


class Dialer:
    """One gateway, dialled for ever."""

    def __init__(self, address: GatewayAddress, identity: Identity, switchboard: Switchboard) -> None:
        self.address = address
        self.left_behind: list[ModelKey] = []
        """What the gateway had loaded when its connection was lost; the loop's thread alone uses it."""
        self._identity = identity
        self._switchboard = switchboard
        self._wake = threading.Event()
        self._is_stopped = False
        self._is_known_away = False
        self._thread = threading.Thread(target=self._run, name=f"dialer {address}", daemon=True)

    def start(self) -> None:
        """Begin to dial."""
        self._thread.start()

    def lost(self) -> None:
        """Dial again: the connection is gone."""
        self._wake.set()

    def stop(self) -> None:
        """Dial no more. An attempt under way ends by itself."""
        self._is_stopped = True
        self._wake.set()

    def _run(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._is_stopped:
            try:
                self._connect()
            except RefusedByGateway as refusal:
                if refusal.is_final:
                    self._switchboard.refused(self, str(refusal))
                    return
                self._is_away(str(refusal))
            except (OSError, ProtocolError) as error:
                self._is_away(str(error))
            else:
                backoff.reset()
                self._wake.wait()  # ends when the loop lost the connection, or stops
                self._wake.clear()
            if not self._is_stopped:
                self._wake.wait(backoff.pause().total_seconds())

    def _connect(self) -> None:
        connection = self.address.connect(_DIAL)
        try:
            greeting = shake_hands(connection, self._identity, self._switchboard.loaded(), Deadline(_HANDSHAKE))
        except BaseException:
            connection.close()
            raise
        self._is_known_away = False
        log.info("gateway_connected", gateway=str(self.address), gateway_id=greeting.welcome.gateway_id)
        stream = Stream(connection, greeting.reader)
        self._switchboard.connected(self, stream, greeting.welcome, greeting.bodies)

    def _is_away(self, reason: str) -> None:
        """Say so once for each time that it is away."""
        if not self._is_known_away:
            self._is_known_away = True
            log.warning("gateway_away", gateway=str(self.address), reason=reason)

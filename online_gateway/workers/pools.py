"""Who is connected, by pool; tells the data plane and the generations of it."""

from typing import Protocol

from contracts.worker_protocol import Loaded, NeedContent, Notification
from online_gateway.dataplane.plane import DataPlane
from online_gateway.notifications import Notifications
from online_gateway.workers.port import WorkerConnection


class PoolListener(Protocol):
    """Who loads generations."""

    def joined(self, link: WorkerConnection) -> None:
        """A worker can be given generations."""

    def left(self, link: WorkerConnection, *, in_order: bool) -> None:
        """It takes nothing new: it ends ``in_order``, or is lost. Told once."""

    def loaded(self, link: WorkerConnection, message: Loaded) -> None:
        """What came of a Load."""

    def needs_content(self, link: WorkerConnection, message: NeedContent) -> None:
        """It wants the bytes of a generation."""


class Pools:
    """The ``WorkerEvents`` of the worker port."""

    def __init__(self, data_plane: DataPlane, notifications: Notifications) -> None:
        self._data_plane = data_plane
        self._notifications = notifications
        self._listener: PoolListener | None = None
        self._members: dict[str, list[WorkerConnection]] = {}

    def subscribe(self, listener: PoolListener) -> None:
        """Have the listener told from now on."""
        self._listener = listener

    def members(self, pool: str) -> list[WorkerConnection]:
        """The pool's workers that can be given something, in the order of their joining."""
        return list(self._members.get(pool, ()))

    def everyone(self) -> list[WorkerConnection]:
        """The members of all pools."""
        return [link for members in self._members.values() for link in members]

    def joined(self, link: WorkerConnection) -> None:
        """It has proven itself."""
        self._members.setdefault(link.pool, []).append(link)
        if self._listener is not None:
            self._listener.joined(link)

    def leaving(self, link: WorkerConnection) -> None:
        """It takes nothing new."""
        self._data_plane.stop_feeding(link)
        self._drop(link, in_order=True)

    def lost(self, link: WorkerConnection, reason: str) -> None:
        """It is gone."""
        self._drop(link, in_order=False)
        self._data_plane.remove_link(link, reason)

    def loaded(self, link: WorkerConnection, message: Loaded) -> None:
        """What came of a Load."""
        if self._listener is not None:
            self._listener.loaded(link, message)

    def needs_content(self, link: WorkerConnection, message: NeedContent) -> None:
        """It wants the bytes of a generation."""
        if self._listener is not None:
            self._listener.needs_content(link, message)

    def notified(self, _link: WorkerConnection, message: Notification) -> None:
        """Its endpoint's code has something to say."""
        self._notifications.add(message)

    def _drop(self, link: WorkerConnection, *, in_order: bool) -> None:
        members = self._members.get(link.pool, [])
        if link not in members:
            return
        members.remove(link)
        if not members:
            del self._members[link.pool]
        if self._listener is not None:
            self._listener.left(link, in_order=in_order)

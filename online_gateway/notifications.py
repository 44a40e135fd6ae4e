"""What endpoints' code wanted its operator to know, kept until somebody takes it."""

from collections import deque

from contracts.worker_protocol import Notification

_MOST_PER_ENDPOINT = 1000
_MOST_ENDPOINTS = 1000


class Notifications:
    """The latest 1000 of each endpoint, and of the latest 1000 endpoints that had any."""

    def __init__(self) -> None:
        self._by_endpoint: dict[str, deque[Notification]] = {}

    def add(self, notification: Notification) -> None:
        """Keep it; the oldest goes where there are too many."""
        kept = self._by_endpoint.get(notification.endpoint)
        if kept is None:
            if len(self._by_endpoint) >= _MOST_ENDPOINTS:
                del self._by_endpoint[next(iter(self._by_endpoint))]
            kept = self._by_endpoint[notification.endpoint] = deque(maxlen=_MOST_PER_ENDPOINT)
        kept.append(notification)

    def take(self, endpoint: str | None = None) -> list[Notification]:
        """Those of the endpoint, or of all, in the order of their time; they are gone afterwards."""
        names = list(self._by_endpoint) if endpoint is None else [endpoint]
        taken = [one for name in names for one in self._by_endpoint.pop(name, ())]
        return sorted(taken, key=lambda one: one.unix_time)

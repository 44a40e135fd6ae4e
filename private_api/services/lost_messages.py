"""Noticing that the broker lost messages: wiped, a queue deleted or purged, a delivery limit reached."""

_SHORT_LOOKS = 10
"""In a queue that moves all the time a single shortfall means nothing, so many in a row do."""


class LossWatch:
    """Compares, look by look, what one queue holds with what it should hold.

    A message in the hand of a consumer that is just claiming is missing from the queue for some milliseconds; therefore
    a shortfall counts only when nothing at all moved since the look before, or when it was seen at many looks in a row.
    """

    def __init__(self) -> None:
        self._previous: tuple[int, int] | None = None
        self._short_looks = 0

    def look(self, ready: int, pending: int) -> bool:
        """Whether messages are lost, given those ready on the broker now and the pending tasks that were published."""
        unchanged = self._previous == (ready, pending)
        self._previous = (ready, pending)
        self._short_looks = self._short_looks + 1 if ready < pending else 0
        if self._short_looks and (unchanged or self._short_looks >= _SHORT_LOOKS):
            self.forget()
            return True
        return False

    def forget(self) -> None:
        """Begin anew, after a repair or an outage."""
        self._previous = None
        self._short_looks = 0

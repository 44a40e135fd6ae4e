"""The calls that wait for the worker's one pair of hands."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from contracts.worker_protocol import Call, Calls, Cancel
from online_worker.session import Session

_SLICE_SECONDS = 0.001
"""A gateway's answers are sent together while they come faster than this; and so often the streams are looked at."""


AtHand = tuple[Session, Call]
"""A call that is being predicted, or of several that are the one with the highest limit, and whose it is."""


@dataclass
class _Batch:
    """The calls of one frame that have not begun."""

    session: Session
    calls: deque[Call]
    together: bool


class Work:
    """First come, first served, over all sessions."""

    def __init__(self) -> None:
        self.at_hand: AtHand | None = None
        """What is being predicted now; any thread may look."""
        self._batches: deque[_Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, session: Session, calls: Calls) -> None:
        """Take in a frame's calls."""
        if calls.calls:
            self._batches.append(_Batch(session, deque(calls.calls), calls.together))

    def cancel(self, session: Session, cancel: Cancel) -> list[int]:
        """Skip those of the session's calls that have not begun; their ids."""
        ids = set(cancel.ids)
        return self._skip(lambda batch, call: batch.session is session and call.id in ids)

    def drop(self, session: Session) -> None:
        """Skip all of the session's calls."""
        self._skip(lambda batch, _: batch.session is session)

    def waits_for(self, session: Session) -> bool:
        """Whether calls of the session have not been answered."""
        return any(batch.session is session for batch in self._batches)

    def run_slice(self) -> None:
        """Answer calls until none waits or a slice of time has passed; at least one call, or one batch."""
        end = time.monotonic() + _SLICE_SECONDS
        while self._batches:
            batch = self._batches[0]
            if batch.together:
                self._batches.popleft()
                self._answer_together(batch.session, list(batch.calls))
            elif self._answer_until(end, batch):
                self._batches.popleft()
            if time.monotonic() >= end:
                return

    def _answer_together(self, session: Session, calls: list[Call]) -> None:
        self.at_hand = session, max(calls, key=lambda call: call.limit_seconds)
        results = session.predict_together(calls)
        self.at_hand = None
        session.answer(results)

    def _answer_until(self, end: float, batch: _Batch) -> bool:
        """Answer calls of the batch, all in one frame; whether it is done."""
        session, calls, results = batch.session, batch.calls, []
        while calls:
            call = calls.popleft()
            self.at_hand = session, call
            results.append(session.predict(call))
            if time.monotonic() >= end:
                break
        self.at_hand = None
        session.answer(results)
        return not calls

    def _skip(self, is_skipped: Callable[[_Batch, Call], bool]) -> list[int]:
        skipped = []
        for batch in self._batches:
            kept: deque[Call] = deque()
            for call in batch.calls:
                if is_skipped(batch, call):
                    skipped.append(call.id)
                else:
                    kept.append(call)
            batch.calls = kept
        self._batches = deque(batch for batch in self._batches if batch.calls)
        return skipped

"""The calls that wait for the worker's one pair of hands."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from contracts.worker_protocol import Call, Calls, Cancel
from online_worker.session import Session

_SLICE_SECONDS = 0.001
"""A gateway's answers are sent together while they come faster than this; and so often the streams are looked at."""


@dataclass
class _Batch:
    """The calls of one frame that have not begun."""

    session: Session
    calls: deque[Call]
    together: bool


class Work:
    """First come, first served, over all sessions."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, session: Session, calls: Calls) -> None:
        """Take in a frame's calls."""
        if calls.calls:
            self._batches.append(_Batch(session, deque(calls.calls), calls.together))

    def cancel(self, session: Session, cancel: Cancel) -> None:
        """Skip those of the session's calls that have not begun."""
        ids = set(cancel.ids)
        self._keep(lambda batch, call: batch.session is not session or call.id not in ids)

    def drop(self, session: Session) -> None:
        """Skip all of the session's calls."""
        self._keep(lambda batch, _: batch.session is not session)

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
                batch.session.answer(batch.session.predict_together(list(batch.calls)))
            elif self._answer_until(end, batch):
                self._batches.popleft()
            if time.monotonic() >= end:
                return

    @staticmethod
    def _answer_until(end: float, batch: _Batch) -> bool:
        """Answer calls of the batch, all in one frame; whether it is done."""
        session, calls, results = batch.session, batch.calls, []
        while calls:
            results.append(session.predict(calls.popleft()))
            if time.monotonic() >= end:
                break
        session.answer(results)
        return not calls

    def _keep(self, is_kept: Callable[[_Batch, Call], bool]) -> None:
        for batch in self._batches:
            batch.calls = deque(call for call in batch.calls if is_kept(batch, call))
        self._batches = deque(batch for batch in self._batches if batch.calls)

"""The thread that loads and closes models while calls are served.

A model's code may never come back from loading or closing. Then the thread is left to it, and another one takes the
next orders: what serves goes on serving.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from online_worker.endpoint import Notify
from online_worker.engines.base import Engine, LoadedModel, ModelSource
from online_worker.engines.failures import told
from online_worker.memory import let_go
from online_worker.models import ModelInMemory, ModelKey, Models
from service_kit.logging import get_logger

log = get_logger(__name__)

_CLOSING_SECONDS = 10.0
"""A model that takes longer to close holds up no orders."""


@dataclass(frozen=True)
class Order:
    """One model to load."""

    key: ModelKey
    engine: str
    config: Mapping[str, Any]
    content: Path | None
    """Its file, which belongs to the loader from now on."""


@dataclass(frozen=True)
class Outcome:
    """The model, held once for who ordered it, or why there is none."""

    model: LoadedModel | None
    message: str = ""
    trace: str = ""


class Loader:
    """Takes orders from any thread, and fulfils one at a time."""

    def __init__(
        self, engine_for: Callable[[str], Engine], worker_id: str, notify: Callable[[str, str, str], None]
    ) -> None:
        """``notify`` takes the endpoint's name before what :data:`online_worker.endpoint.Notify` takes."""
        self.models = Models(self._close_later)
        self._engine_for = engine_for
        self._worker_id = worker_id
        self._notify = notify
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._at_hand: Order | None = None
        self._is_given_up = False
        self._closing_since: float | None = None
        self._thread = self._new_thread()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self) -> None:
        """Begin with the orders."""
        self._thread.start()

    def load(self, order: Order, done: Callable[[Outcome], None]) -> None:
        """Load it and call ``done``, in the loader's thread."""
        self._jobs.put(lambda: done(self._load(order)))
        with self._lock:
            since = self._closing_since
            if self._is_given_up or (since is not None and time.monotonic() - since > _CLOSING_SECONDS):
                log.warning("loader_replaced", given_up=self._at_hand.key.endpoint if self._at_hand else "a closing")
                self._at_hand, self._is_given_up, self._closing_since = None, False, None
                self._thread = self._new_thread()
                self._thread.start()

    def give_up(self, order: Order) -> None:
        """Nobody waits for it any more; should it be at hand and never end, that does not hold up the next one."""
        with self._lock:
            self._is_given_up = self._is_given_up or self._at_hand is order

    def stop(self, within: timedelta) -> None:
        """Close all models, but wait no longer than that; what is being loaded is given up."""
        self.models.release_all()
        self._jobs.put(None)
        self._thread.join(within.total_seconds())

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it would keep its model alive until the next one comes
            if self._is_replaced():
                return

    def _is_replaced(self) -> bool:
        return threading.current_thread() is not self._thread

    def _note(self, order: Order | None = None, *, closing_since: float | None = None) -> bool:
        """Have it known what is at hand; whether another thread has taken this one's place."""
        with self._lock:
            if not self._is_replaced():
                self._at_hand, self._is_given_up, self._closing_since = order, False, closing_since
            return self._is_replaced()

    def _load(self, order: Order) -> Outcome:
        model = self.models.hold(order.key)  # another gateway's order may have come first
        if model is not None:
            _remove(order.content)
            return Outcome(model)
        self._note(order)
        try:
            model = self._engine_for(order.engine).load(self._source(order))
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything, SystemExit too: it is reported
            message, trace = told(error)
            self._note()
        else:
            if self._note():
                self._close(ModelInMemory(order.key, model, order.content))
                return Outcome(None, "It was given up before it was loaded.")
            self.models.add(order.key, model, order.content)
            log.info("model_loaded", endpoint=order.key.endpoint, digest=order.key.digest[:12])
            return Outcome(model)
        log.warning("model_refused", endpoint=order.key.endpoint, digest=order.key.digest[:12], reason=message)
        _remove(order.content)
        let_go()
        return Outcome(None, message, trace)

    def _source(self, order: Order) -> ModelSource:
        return ModelSource(
            endpoint=order.key.endpoint,
            config=order.config,
            content=order.content,
            worker_id=self._worker_id,
            notify=self._notify_of(order.key.endpoint),
        )

    def _notify_of(self, endpoint: str) -> Notify:
        def notify(kind: str, message: str) -> None:
            self._notify(endpoint, kind, message)

        return notify

    def _close_later(self, unused: ModelInMemory) -> None:
        self._jobs.put(lambda: self._close(unused))

    def _close(self, unused: ModelInMemory) -> None:
        self._note(closing_since=time.monotonic())
        try:
            unused.model.close()
        except BaseException as error:  # noqa: BLE001 - a user's code again; it is gone all the same
            message, trace = told(error)
            log.warning("model_not_closed", endpoint=unused.key.endpoint, reason=message, trace=trace)
        self._note()
        log.info("model_closed", endpoint=unused.key.endpoint, digest=unused.key.digest[:12])
        _remove(unused.content)
        del unused.model
        let_go()


def _remove(content: Path | None) -> None:
    if content is not None:
        content.unlink(missing_ok=True)

"""The generations in memory, each one once however many gateways serve it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from online_worker.engines.base import LoadedModel


class ModelKey(NamedTuple):
    """What is the same in both is the same model."""

    endpoint: str
    digest: str


@dataclass
class ModelInMemory:
    """A loaded model and the file that it was made of."""

    key: ModelKey
    model: LoadedModel
    content: Path | None
    holds: int = 1
    """Generations of gateways that are served with it; it is closed when there is none."""


class Models:
    """Counts who holds each model. Any thread may call it."""

    def __init__(self, close: Callable[[ModelInMemory], None]) -> None:
        """``close`` is called with each model that nobody holds any more."""
        self._close = close
        self._models: dict[ModelKey, ModelInMemory] = {}
        self._lock = threading.Lock()

    def hold(self, key: ModelKey) -> LoadedModel | None:
        """The model, held once more; None where it is not in memory."""
        with self._lock:
            found = self._models.get(key)
            if found is None:
                return None
            found.holds += 1
            return found.model

    def add(self, key: ModelKey, model: LoadedModel, content: Path | None) -> None:
        """Take in a model that was just loaded, held once. Only one thread loads, so there is no other of this key."""
        with self._lock:
            self._models[key] = ModelInMemory(key, model, content)

    def release(self, key: ModelKey) -> None:
        """Let go of one hold."""
        with self._lock:
            found = self._models[key]
            found.holds -= 1
            if found.holds > 0:
                return
            del self._models[key]
        self._close(found)

    def release_all(self) -> None:
        """Close every model, whoever holds it: the worker ends."""
        with self._lock:
            models = list(self._models.values())
            self._models.clear()
        for model in models:
            self._close(model)

    def loaded(self) -> dict[str, list[str]]:
        """The digests in memory, by endpoint."""
        with self._lock:
            digests: dict[str, list[str]] = {}
            for key in self._models:
                digests.setdefault(key.endpoint, []).append(key.digest)
            return digests

"""Users who poll and post without a pause, and count what failed: nothing is asked twice, as a careful client would."""

import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from contracts import routes
from contracts.task_state import POLL_PENDING
from inference_client.uploading import FILE_FIELD

POLLERS = 4
_POLL_PAUSE = 0.02
_POST_PAUSE = 0.5
_ANSWER_SECONDS = 30


class ConstantLoad:
    """Runs as long as the context; ``pending`` is the uid of a task that stays pending."""

    def __init__(self, url: str, ca: Path, *, model: str, package: Path, pending: str) -> None:
        self.failures: list[str] = []
        self.answered: Counter[str] = Counter()
        self.posted: list[str] = []
        self._client = httpx.Client(
            base_url=url, verify=ssl.create_default_context(cafile=ca), timeout=_ANSWER_SECONDS, trust_env=False
        )
        self._model = model
        self._package = package.read_bytes()
        self._pending = pending
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._poll) for _ in range(POLLERS)]
        self._threads.append(threading.Thread(target=self._post))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * _ANSWER_SECONDS)
        self._client.close()

    def _poll(self) -> None:
        while not self._over.wait(_POLL_PAUSE):
            with self._counted("poll"):
                answer = self._client.get(routes.TASK.format(uid=self._pending))
                assert answer.status_code == POLL_PENDING, f"{answer.status_code}: {answer.text[:200]}"

    def _post(self) -> None:
        while not self._over.wait(_POST_PAUSE):
            with self._counted("post"):
                answer = self._client.post(
                    routes.TASKS,
                    params={"model_human_readable_id": self._model},
                    files={FILE_FIELD: ("in.zip", self._package)},
                )
                assert answer.is_success, f"{answer.status_code}: {answer.text[:200]}"
                self.posted.append(answer.json())

    @contextlib.contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, AssertionError) as error:
            self.failures.append(f"{what}: {type(error).__name__} {error}")
        else:
            self.answered[what] += 1

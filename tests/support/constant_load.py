"""Users who poll and post without a pause, or over a slow line, and tell what failed: none asks twice, as a client might."""

import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
_DROP_PAUSE = 1
_ANSWER_SECONDS = 30


class ConstantLoad:
    """Runs as long as the context; ``pending`` is the uid of a task that stays pending."""

    def __init__(self, url: str, ca: Path, *, model: str, package: Path, pending: str) -> None:
        self.failures: list[str] = []
        self.answered: Counter[str] = Counter()
        self.posted: list[str] = []
        self._url = url
        self._trusting = ssl.create_default_context(cafile=ca)
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

    def _client(self) -> httpx.Client:
        """One user's; each keeps its connections."""
        return httpx.Client(base_url=self._url, verify=self._trusting, timeout=_ANSWER_SECONDS, trust_env=False)

    def _poll(self) -> None:
        with self._client() as client:
            while not self._over.wait(_POLL_PAUSE):
                with self._counted("poll"):
                    answer = client.get(routes.TASK.format(uid=self._pending))
                    assert answer.status_code == POLL_PENDING, f"{answer.status_code}: {answer.text[:200]}"

    def _post(self) -> None:
        with self._client() as client:
            while not self._over.wait(_POST_PAUSE):
                with self._counted("post"):
                    answer = client.post(
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


class SlowUpload:
    """A post of a task that takes a second for each byte of its zip, until :meth:`hurry`."""

    def __init__(self, url: str, ca: Path, *, model: str, package: Path) -> None:
        self._address = f"{url}{routes.TASKS}"
        self._ca = ca
        self._model = model
        self._package = package.read_bytes()
        self._hurried = threading.Event()
        self.is_under_way = threading.Event()
        self._threads = ThreadPoolExecutor(1)
        self._answer = self._threads.submit(self._post)

    def hurry(self) -> str:
        """Send the rest at once; the new task's uid. An AssertionError where the upload was cut."""
        self._hurried.set()
        answer = self._answer.result(2 * _ANSWER_SECONDS)
        assert answer.is_success, f"{answer.status_code}: {answer.text[:200]}"
        uid: str = answer.json()
        return uid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hurried.set()
        self._threads.shutdown()

    def _post(self) -> httpx.Response:
        head = (
            f'--slow\r\nContent-Disposition: form-data; name="{FILE_FIELD}"; filename="in.zip"\r\n'
            "Content-Type: application/zip\r\n\r\n"
        ).encode()
        tail = b"\r\n--slow--\r\n"
        return httpx.post(
            self._address,
            params={"model_human_readable_id": self._model},
            headers={
                "Content-Type": "multipart/form-data; boundary=slow",
                "Content-Length": str(len(head) + len(self._package) + len(tail)),
            },
            content=self._drops(head, tail),
            verify=ssl.create_default_context(cafile=self._ca),
            timeout=_ANSWER_SECONDS,
            trust_env=False,
        )

    def _drops(self, head: bytes, tail: bytes) -> Iterator[bytes]:
        yield head
        for number, byte in enumerate(self._package):
            yield bytes([byte])
            if number:
                self.is_under_way.set()
            self._hurried.wait(_DROP_PAUSE)
        yield tail

"""An output on its way here: streamed to a file beside the destination, resumed after a cut, checked, renamed."""

import hashlib
import os
import re
import secrets
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import httpx

from contracts.models import BlobRef
from inference_client.errors import ClientError, OutputDamaged, RequestRefused, ServerUnreachable
from inference_client.pacing import Backoff, Deadline
from inference_client.task_calls import TaskCalls
from inference_client.uploading import OnProgress

_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def download_output(
    calls: TaskCalls,
    uid: str,
    destination: Path,
    announced: BlobRef | None,
    on_progress: OnProgress | None,
    patience: timedelta,
) -> None:
    """Fetch the output; the destination appears whole or not at all, and replaces a file that was there.

    Raises
    ------
    ServerUnreachable
        Nothing more came for as long as ``patience``.
    OutputDamaged
        Length or hash are not the announced ones.
    TaskUnfinished, TaskFailed, TaskCancelled, OutputMissing, TaskNotFound
        There is no output.
    OSError
        The file cannot be written.
    """
    part = destination.with_name(f".{destination.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            download = _Download(calls, uid, file, on_progress)
            download.fetch(patience)
            download.check(announced)
            file.flush()
            os.fsync(file.fileno())
        part.replace(destination)
        _sync_folder(destination.parent)
    finally:
        part.unlink(missing_ok=True)


class _Download:
    """The bytes so far, and what is known of the whole."""

    def __init__(self, calls: TaskCalls, uid: str, file: BinaryIO, on_progress: OnProgress | None) -> None:
        self._calls = calls
        self._uid = uid
        self._file = file
        self._on_progress = on_progress
        self._digest = hashlib.sha256()
        self._received = 0
        self._total: int | None = None
        self._etag: str | None = None

    def fetch(self, patience: timedelta) -> None:
        """Connect until all is here; the patience begins anew with each byte beyond the farthest so far."""
        backoff = Backoff()
        deadline = Deadline(patience)
        farthest = 0
        while True:
            try:
                self._take()
            except (ServerUnreachable, RequestRefused) as error:
                trouble: ClientError = error
                if isinstance(error, RequestRefused) and not error.is_temporary:
                    raise
            else:
                return
            if self._received > farthest:
                farthest = self._received
                deadline = Deadline(patience)
                backoff.reset()
            retry_after = trouble.retry_after if isinstance(trouble, RequestRefused) else None
            if not deadline.pause(backoff.pause(retry_after)):
                raise trouble

    def check(self, announced: BlobRef | None) -> None:
        """Compare with what the server said of the whole."""
        if self._total is not None and self._received != self._total:
            raise OutputDamaged(self._uid, f"{self._received} bytes came of {self._total}; fetch the output again.")
        if announced is not None and announced.sha256 != self._digest.hexdigest():
            raise OutputDamaged(
                self._uid, "The bytes that came do not have the announced SHA-256; fetch the output again."
            )

    def _take(self) -> None:
        """One connection's worth of bytes."""
        headers: dict[str, str] = {}
        if self._received and self._etag is not None:
            headers = {"Range": f"bytes={self._received}-", "If-Range": self._etag}
        with self._calls.output(self._uid, headers) as answer:
            if answer.status_code == _RANGE_NOT_SATISFIABLE:
                self._start_over(answer)
                raise ServerUnreachable("The server could not continue the download where it was cut.")
            if not answer.is_success:
                raise self._calls.without_output(self._uid, answer)
            if not self._continues(answer):
                self._start_over(answer)
            for chunk in answer.iter_raw():  # as they come: with a chunk size, a cut would lose what httpx gathers
                self._file.write(chunk)
                self._digest.update(chunk)
                self._received += len(chunk)
                if self._on_progress is not None:
                    self._on_progress(self._received, self._total)

    def _continues(self, answer: httpx.Response) -> bool:
        """Whether the answer begins where the bytes so far end."""
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if answer.status_code != _PARTIAL_CONTENT or match is None:
            return False
        if int(match[1]) != self._received:
            raise OutputDamaged(self._uid, "The server continued the download at another place; fetch it again.")
        self._total = int(match[2])
        return True

    def _start_over(self, answer: httpx.Response) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._received = 0
        length = answer.headers.get("content-length", "")
        self._total = int(length) if length.isdecimal() and answer.is_success else None
        etag = answer.headers.get("etag", "")
        self._etag = etag if etag.startswith('"') else None  # a weak one does not promise the same bytes


def _sync_folder(folder: Path) -> None:
    """Make the rename durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

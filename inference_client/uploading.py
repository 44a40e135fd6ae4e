"""A file on its way to the server: one multipart body, read from disk as it is sent."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from inference_client.errors import InputRefused

OnProgress = Callable[[int, int | None], None]
"""Told the bytes passed so far, and how many there will be where that is known."""

CHUNK_BYTES = 2**20
FILE_FIELD = "zip_file"


class MultipartFile:
    """The body of one post. It can be sent once.

    The file's own name stays here: it may tell more than its receiver needs, such as who was scanned.

    Attributes
    ----------
    complete
        Whether the last byte was handed to the connection. Until then the server cannot have taken the file.
    """

    def __init__(self, path: Path, on_progress: OnProgress | None = None) -> None:
        boundary = secrets.token_hex(16)
        self._path = path
        self._on_progress = on_progress
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{FILE_FIELD}"; filename="upload.zip"\r\n'
            "Content-Type: application/zip\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        try:
            self._size = path.stat().st_size
        except OSError as error:
            raise InputRefused(f"{path} cannot be read: {error.strerror}.") from error
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + self._size + len(self._tail)),
        }
        self.complete = False

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        sent = 0
        for chunk in self._chunks():
            sent += len(chunk)
            if sent > self._size:
                break
            yield chunk
            if self._on_progress is not None:
                self._on_progress(sent, self._size)
        if sent != self._size:
            raise InputRefused(f"{self._path} changed its size while it was sent; nothing was posted.")
        self.complete = True
        yield self._tail

    def _chunks(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise InputRefused(f"{self._path} cannot be read: {error.strerror}.") from error

"""Stored files as answers."""

import os

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from private_api.records import Blob
from private_api.storage.files import BlobStore
from service_kit.http_app import error_response


class BlobResponse(FileResponse):
    """A stored file in large chunks, with its hash as ETag; ranges, If-None-Match and HEAD work."""

    chunk_size = 2**20

    def __init__(self, files: BlobStore, blob: Blob, filename: str) -> None:
        """Open the file: a deletion from now on does not reach those who are being sent it.

        Raises
        ------
        FileNotFoundError
            The bytes are gone.
        """
        self._file = files.path(blob.name).open("rb", buffering=0)
        super().__init__(
            f"/dev/fd/{self._file.fileno()}",  # what is open, whether or not it still has a name
            media_type="application/zip",
            filename=filename,
            headers={"ETag": f'"{blob.sha256}"'},
            stat_result=os.fstat(self._file.fileno()),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, a part of it, or word that the client has it; refuse a wrong range in JSON."""
        with self._file:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        etag = self.headers["etag"]
        if _names(Headers(scope=scope).get("if-none-match", ""), etag):
            await Response(status_code=304, headers={"ETag": etag})(scope, receive, send)
            return
        is_refused = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                is_refused = True
                refusal = _range_refusal(message["status"], self.headers["content-length"])
                await refusal(scope, receive, send)
            elif not is_refused:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)


def _names(if_none_match: str, etag: str) -> bool:
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return etag in known or "*" in known


def _range_refusal(status: int, size: str) -> Response:
    detail = f"The Range cannot be had; write bytes=FIRST-LAST, counted from 0 within {size} bytes."
    return error_response(status, detail, "http_error", {"Content-Range": f"bytes */{size}"})

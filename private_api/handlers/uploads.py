"""Uploads as streams: the file field out of a multipart body, and raw bodies. No more than one chunk is held.

Starlette's form parser would write each upload to a temporary file first; this one hands the bytes on as they come.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from contracts.archives import check_archive
from contracts.errors import InvalidRequest, UploadTooLarge
from private_api.handlers.services import Services
from private_api.records import Blob
from private_api.storage.files import BlobKind

FILE_FIELD = "zip_file"

_IDLE = timedelta(seconds=60)
_OTHER_FIELDS_BYTES = 2**20
"""Room for other fields and the frame of the multipart body."""

_HOW_TO = f"send multipart/form-data with a file field {FILE_FIELD!r}"


async def body(request: Request) -> AsyncIterator[bytes]:
    """The chunks of a request's body; a client that is silent for too long is given up.

    Raises
    ------
    HTTPException
        408: nothing arrived for a minute.
    """
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_IDLE.total_seconds()):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise HTTPException(408, f"No bytes arrived for {_IDLE.total_seconds():g} s; send it again.") from error
        if chunk is None:
            return
        if chunk:
            yield chunk


def declared_length(request: Request) -> int:
    """The Content-Length, or 0 where there is none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


class FileField:
    """The file field of one multipart request.

    First :meth:`find`, then :meth:`chunks` if it was there. Other fields may stand before and after it.
    """

    def __init__(self, request: Request) -> None:
        content_type, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if content_type != b"multipart/form-data" or not boundary:
            raise InvalidRequest(f"The body is not a form; {_HOW_TO}.")
        self._body = body(request)
        self._pieces: list[memoryview] = []
        self._header = b""
        self._disposition = b""
        self._value = b""
        self._is_ours = False
        self._was_found = False
        self._is_complete = False
        self._ignored_bytes = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"The boundary of the form is wrong ({error}); {_HOW_TO}.") from error

    async def find(self) -> bool:
        """Read up to the file; whether there is one.

        Raises
        ------
        InvalidRequest
            The body is no form, or ends early.
        """
        while not self._was_found:
            if not await self._read():
                return False
        return True

    async def chunks(self) -> AsyncIterator[memoryview]:
        """The bytes of the file; then the rest of the body is read and checked. Raises as :meth:`find` does."""
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece
            if not await self._read():
                return

    async def _read(self) -> bool:
        chunk = await anext(self._body, None)
        if chunk is None:
            if not self._is_complete:
                raise InvalidRequest("The form ends before its last boundary; send it again.")
            return False
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"The form cannot be read ({error}); {_HOW_TO}.") from error
        return True

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._is_ours = False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if options.get(b"name") != FILE_FIELD.encode():
            return
        if b"filename" not in options:
            raise InvalidRequest(f"The field {FILE_FIELD!r} is no file; {_HOW_TO}.")
        if not options[b"filename"]:
            return  # a browser's way to say that no file was chosen
        if self._was_found:
            raise InvalidRequest(f"The form has two files {FILE_FIELD!r}; send one zip.")
        self._is_ours = self._was_found = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_ours:
            self._pieces.append(memoryview(data)[start:end])
            return
        self._ignored_bytes += end - start
        if self._ignored_bytes > _OTHER_FIELDS_BYTES:
            raise UploadTooLarge(f"The fields beside {FILE_FIELD!r} are too large; send the zip in {FILE_FIELD!r}.")

    def _on_end(self) -> None:
        self._is_complete = True


def refuse_early(request: Request, services: Services, most_bytes: int) -> None:
    """Refuse by the declared length what would be refused while reading.

    Raises
    ------
    UploadTooLarge, StorageFull
        The body is above the limit, or the disk has no room for it.
    """
    length = declared_length(request)
    if length > most_bytes + _OTHER_FIELDS_BYTES:
        raise UploadTooLarge(f"The upload has {length} bytes; the limit is {most_bytes}.")
    services.files.check_space(length)


async def store_zip(services: Services, field: FileField, kind: BlobKind) -> Blob:
    """Store the file of the form, and check that it is an acceptable zip; nothing is left where it is not."""
    blob = await services.files.receive(kind, field.chunks(), services.bounds.upload_bytes)
    try:
        await services.files.in_thread(check_archive, services.files.path(blob.name), services.bounds.archive)
    except BaseException:
        await services.files.remove([blob.name])
        raise
    return blob


async def receive_zip(request: Request, services: Services, kind: BlobKind) -> Blob | None:
    """The zip of a multipart request, stored and checked; None where the form has none, or there is no form at all."""
    if "content-type" not in request.headers and declared_length(request) == 0:
        return None
    refuse_early(request, services, services.bounds.upload_bytes)
    field = FileField(request)
    return await store_zip(services, field, kind) if await field.find() else None


UPLOAD_BODY = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FILE_FIELD: {"type": "string", "format": "binary"}},
                }
            }
        }
    }
}
"""How the upload looks in the API's description."""

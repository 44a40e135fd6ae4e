"""Uploads as streams: a file and small text fields out of a multipart body. No more than one chunk is held.

Starlette's form parser would write each upload to a temporary file first; this one hands the bytes on as they come.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import timedelta

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from contracts.errors import InvalidRequest, UploadTooLarge

OTHER_FIELDS_BYTES = 2**20
"""Room for other fields and the frame of the multipart body."""

_IDLE = timedelta(seconds=60)


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


class UploadForm:
    """One file field of one multipart request, and the text fields that are asked for.

    First :meth:`find`, then :meth:`chunks` if it was there. Other fields may stand before and after it.
    """

    def __init__(self, request: Request, file_field: str, text_fields: Collection[str] = ()) -> None:
        self.texts: dict[str, str] = {}
        """The text fields that were found; complete once the chunks were read, or no file was found."""
        self._file_field = file_field
        self._text_fields = {name.encode(): name for name in text_fields}
        self._how_to = f"send multipart/form-data with a file field {file_field!r}"
        content_type, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if content_type != b"multipart/form-data" or not boundary:
            raise InvalidRequest(f"The body is not a form; {self._how_to}.")
        self._body = body(request)
        self._pieces: list[memoryview] = []
        self._header = b""
        self._disposition = b""
        self._value = b""
        self._text: bytearray | None = None
        self._text_name = ""
        self._is_ours = False
        self._was_found = False
        self._is_complete = False
        self._other_bytes = 0
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
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"The boundary of the form is wrong ({error}); {self._how_to}.") from error

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
            raise InvalidRequest(f"The form cannot be read ({error}); {self._how_to}.") from error
        return True

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._is_ours = False
        self._text = None

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
        name = options.get(b"name", b"")
        if name in self._text_fields:
            self._begin_text(self._text_fields[name])
        elif name == self._file_field.encode():
            self._begin_file(options.get(b"filename"))

    def _begin_text(self, name: str) -> None:
        if name in self.texts:
            raise InvalidRequest(f"The form has two fields {name!r}; send one.")
        self._text, self._text_name = bytearray(), name

    def _begin_file(self, filename: bytes | None) -> None:
        if filename is None:
            raise InvalidRequest(f"The field {self._file_field!r} is no file; {self._how_to}.")
        if not filename:
            return  # a browser's way to say that no file was chosen
        if self._was_found:
            raise InvalidRequest(f"The form has two files {self._file_field!r}; send one.")
        self._is_ours = self._was_found = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_ours:
            self._pieces.append(memoryview(data)[start:end])
            return
        self._other_bytes += end - start
        if self._other_bytes > OTHER_FIELDS_BYTES:
            raise UploadTooLarge(
                f"The fields beside {self._file_field!r} are too large; send the file in {self._file_field!r}."
            )
        if self._text is not None:
            self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._text is None:
            return
        try:
            self.texts[self._text_name] = self._text.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"The field {self._text_name!r} is not UTF-8: {error.reason}.") from error

    def _on_end(self) -> None:
        self._is_complete = True

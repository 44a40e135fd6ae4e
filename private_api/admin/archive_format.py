"""The format of a backup: one tar file, written and read as a stream, that any other tar can unpack too.

::

    manifest.json        what this is: versions, counts, hashes
    tables/NAME.jsonl    the rows of each table, one JSON object a line, referred tables first
    files.jsonl          the stored files that the rows name, one JSON object a line
    files/NAME           each of them that is not missing, in that order
    end.json             the hash of the manifest, and the files whose bytes were wrong already when they were read

Members are regular files with plain ustar headers (sizes above 8 GiB in base 256, as GNU tar writes them). The reader
takes nothing else: no link, no folder, no extended header, and no name but the one that comes next.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import Conflict, InvalidRequest
from private_api.records import Blob

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
FILES = "files.jsonl"
END = "end.json"
PIECE_BYTES = 2**20
_LONGEST_DOCUMENT = 16 * 2**20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,60}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Rows(_Part):
    """One member of lines."""

    rows: Count
    sha256: Sha256


class StoredFile(_Part):
    """One line of ``files.jsonl``; a missing file was deleted while the backup was made, and has no member."""

    name: Annotated[str, Field(pattern=r"^(inputs|outputs|models)/[A-Za-z0-9_-]{1,80}$")]
    sha256: Sha256
    size: Count
    is_missing: bool = False

    @classmethod
    def from_blob(cls, blob: Blob, *, is_missing: bool) -> "StoredFile":
        """The line of a file that a row names."""
        return cls(name=blob.name, sha256=blob.sha256, size=blob.size, is_missing=is_missing)


class Manifest(_Part):
    """The first member."""

    format: Literal[1] = FORMAT
    software: str
    revision: Annotated[str, Field(max_length=32)]
    installation: str
    created_at: Annotated[datetime, Field(strict=False)]
    tables: dict[TableName, Rows]
    files: Rows
    """Of ``files.jsonl``, missing files included."""
    missing_files: Count
    file_bytes: Count


class End(_Part):
    """The last member: without it the backup was cut off."""

    manifest_sha256: Sha256
    damaged: list[str]


def table_member(name: str) -> str:
    """The member that holds a table's rows."""
    return f"tables/{name}.jsonl"


def file_member(name: str) -> str:
    """The member that holds a stored file."""
    return f"files/{name}"


def encode_line(values: Any) -> bytes:
    """One line of a member of lines."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def damaged(detail: str) -> InvalidRequest:
    """The error that says why a backup cannot be used."""
    return InvalidRequest(f"The backup is damaged or incomplete ({detail}); nothing was changed. Use another backup.")


def parse_manifest(text: bytes) -> Manifest:
    """What the first member says.

    Raises
    ------
    Conflict
        A newer version made the backup, in a format that this one does not read.
    InvalidRequest
        It is no manifest.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged("its manifest is no JSON") from error
    if isinstance(said, dict) and isinstance(said.get("format"), int) and said["format"] > FORMAT:
        raise Conflict(
            f"The backup has format {said['format']}, made by version {said.get('software')}; this version reads "
            f"format {FORMAT}. Install that version, or a newer one."
        )
    try:
        return Manifest.model_validate(said)
    except ValidationError as error:
        raise damaged(f"its manifest: {_first_mistake(error)}") from error


def parse_end(text: bytes) -> End:
    """What the last member says."""
    try:
        return End.model_validate_json(text)
    except ValidationError as error:
        raise damaged(f"its end: {_first_mistake(error)}") from error


def parse_file_line(line: bytes) -> StoredFile:
    """One line of ``files.jsonl``."""
    try:
        return StoredFile.model_validate_json(line)
    except ValidationError as error:
        raise damaged(f"its list of files: {_first_mistake(error)}") from error


def parse_row(line: bytes) -> dict[str, Any]:
    """One line of a table."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise damaged("a row is no JSON") from error
    if not isinstance(row, dict):
        raise damaged("a row is no JSON object")
    return row


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, mistake['loc']))} {mistake['msg']}".strip()


class TarWriter:
    """Appends members to a stream."""

    def __init__(self, target: BinaryIO, modified_at: int) -> None:
        self._target = target
        self._modified_at = modified_at

    def add(self, name: str, size: int, source: BinaryIO) -> str:
        """Append a member of exactly that size, cut or filled up with zeros if need be; the hash of what it holds."""
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = size, self._modified_at, 0o600
        self._target.write(header.tobuf(tarfile.GNU_FORMAT))
        digest = hashlib.sha256()
        missing = size
        while missing:
            piece = _read_or_zeros(source, min(missing, PIECE_BYTES))
            digest.update(piece)
            self._target.write(piece)
            missing -= len(piece)
        self._target.write(bytes(-size % tarfile.BLOCKSIZE))
        return digest.hexdigest()

    def end(self) -> None:
        """Write the two empty blocks that end a tar."""
        self._target.write(bytes(2 * tarfile.BLOCKSIZE))


def _read_or_zeros(source: BinaryIO, size: int) -> bytes:
    """Bytes of a member; zeros where the disk has lost them, which the member's hash then tells."""
    try:
        return source.read(size) or bytes(size)
    except OSError:
        return bytes(size)


class TarReader:
    """Takes members from a stream, each named by the caller, who reads it to its end before the next."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def enter(self, name: str) -> int:
        """Go to the next member; its size.

        Raises
        ------
        InvalidRequest
            The next member is another, or something that no backup holds.
        """
        block = self._read(tarfile.BLOCKSIZE)
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise damaged(f"{name} does not begin where it should") from error
        if header.type != tarfile.REGTYPE or header.name != name or header.size < 0:
            raise damaged(f"{name} does not come where it should")
        return header.size

    def pieces(self, size: int) -> Iterator[bytes]:
        """The bytes of the member that was entered."""
        missing = size
        while missing:
            piece = self._read(min(missing, PIECE_BYTES))
            missing -= len(piece)
            yield piece
        self._read(-size % tarfile.BLOCKSIZE)

    def end(self) -> None:
        """Take the empty blocks that end a tar."""
        if any(self._read(2 * tarfile.BLOCKSIZE)):
            raise damaged("something follows its end")

    def document(self, name: str) -> bytes:
        """A whole small member."""
        size = self.enter(name)
        if size > _LONGEST_DOCUMENT:
            raise damaged(f"{name} is too long")
        return b"".join(self.pieces(size))

    def _read(self, size: int) -> bytes:
        piece = self._source.read(size)
        if len(piece) < size:
            raise damaged("it ends too early")
        return piece

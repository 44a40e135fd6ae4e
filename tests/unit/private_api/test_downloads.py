"""Stored files as answers, where the file goes away meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.types import Message

from private_api.handlers.downloads import BlobResponse
from private_api.storage.files import BlobKind, BlobStore

CONTENT = b"0123456789" * 10


async def chunks() -> AsyncIterator[bytes]:
    yield CONTENT


async def sent_after_removal(root: Path, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Finds a stored file, removes it, and only then sends the answer; its status and body."""
    with closing(BlobStore(root, min_free_bytes=0)) as files:
        blob = await files.receive(BlobKind.OUTPUT, chunks(), len(CONTENT))
        response = BlobResponse(files, blob, "output.zip")
        await files.remove([blob.name])
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError("the client stays to the end")

        await response({"type": "http", "method": "GET", "headers": headers}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [([], 200, CONTENT), ([(b"range", b"bytes=3-5")], 206, b"345"), ([(b"if-none-match", b"*")], 304, b"")],
)
def test_what_was_found_is_sent_though_it_was_removed_since(
    tmp_path: Path, headers: list[tuple[bytes, bytes]], status: int, body: bytes
) -> None:
    assert asyncio.run(sent_after_removal(tmp_path, headers)) == (status, body)

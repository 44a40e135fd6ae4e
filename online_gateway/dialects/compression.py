"""Bodies that are compressed: gzip, and deflate, which is zlib's format (RFC 9110, 8.4.1)."""

import asyncio
import zlib

from contracts.errors import UploadTooLarge
from contracts.inference import InvalidInput
from online_gateway.dialects.base import Reply

_COMPRESSED_FROM_BYTES = 1024


async def decompressed(body: bytes, encoding: bytes, most_bytes: int) -> bytes:
    """What a body holds; in a thread, since a small body may hold much.

    Raises
    ------
    InvalidInput, UploadTooLarge
        It is not compressed so, or holds more than a call may have.
    """
    encoding = encoding.strip().lower()
    if encoding in {b"", b"identity"}:
        return body
    if encoding not in {b"gzip", b"deflate"}:
        raise InvalidInput(f"Content-Encoding {encoding.decode('latin-1')!r} is not supported: send gzip or deflate.")
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == b"gzip" else 0))
    try:
        plain = await asyncio.to_thread(decompressor.decompress, body, most_bytes)
    except zlib.error as error:
        raise InvalidInput(f"The body is not what its Content-Encoding says: {error}.") from error
    if decompressor.unconsumed_tail:
        raise UploadTooLarge(f"A call may have {most_bytes} bytes when it is decompressed.")
    if not decompressor.eof or decompressor.unused_data:
        raise InvalidInput("The compressed body ends early, or something follows it.")
    return plain


async def compressed(reply: Reply, accepted: bytes) -> Reply:
    """The reply in the first encoding of ours that the client takes; a short one stays as it is."""
    if len(reply.body) < _COMPRESSED_FROM_BYTES:
        return reply
    names = [part.partition(b";") for part in accepted.lower().split(b",")]
    wanted = {name.strip() for name, _, weight in names if weight.strip() not in {b"q=0", b"q=0.0"}}
    for encoding, bits in ((b"gzip", 16), (b"deflate", 0)):
        if encoding in wanted:
            body = await asyncio.to_thread(_compress, reply.body, zlib.MAX_WBITS | bits)
            return reply._replace(body=body, headers=(*reply.headers, (b"content-encoding", encoding)))
    return reply


def _compress(body: bytes, bits: int) -> bytes:
    compressor = zlib.compressobj(level=1, wbits=bits)
    return compressor.compress(body) + compressor.flush()

"""Compressed bodies are read whole or refused, and answers are compressed for those who take it."""

import asyncio
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidRequest, UploadTooLarge
from online_gateway.dialects.base import Reply
from online_gateway.dialects.compression import compressed, decompressed

MOST = 10_000
PACK = {b"gzip": gzip.compress, b"deflate": zlib.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def unpacked(body: bytes, encoding: bytes) -> bytes:
    return asyncio.run(decompressed(body, encoding, MOST))


def encoding_for(accepted: bytes, body: bytes = b"x" * 5000) -> str:
    reply = asyncio.run(compressed(Reply(200, body), accepted))
    encoding = dict(reply.headers).get(b"content-encoding", b"").decode()
    assert UNPACK.get(encoding, bytes)(reply.body) == body
    return encoding


@given(st.binary(max_size=MOST), st.sampled_from(sorted(PACK)))
def test_a_compressed_body_is_read_whole(body: bytes, encoding: bytes) -> None:
    assert unpacked(PACK[encoding](body), encoding) == body


@given(st.binary(max_size=200), st.sampled_from([*PACK, b"br", b"", b"identity"]))
def test_whatever_is_sent_is_read_or_refused_in_a_sentence(body: bytes, encoding: bytes) -> None:
    try:
        unpacked(body, encoding)
    except InvalidRequest as error:
        said = error.message
    else:
        said = "."

    assert said.endswith(".")


@pytest.mark.parametrize("encoding", sorted(PACK))
def test_a_body_that_grows_above_the_limit_is_refused(encoding: bytes) -> None:
    assert len(unpacked(PACK[encoding](b"0" * MOST), encoding)) == MOST

    with pytest.raises(UploadTooLarge):
        unpacked(PACK[encoding](b"0" * (MOST + 1)), encoding)


@pytest.mark.parametrize("encoding", sorted(PACK))
@pytest.mark.parametrize(("cut", "more"), [(1, b""), (None, b"more")])
def test_a_body_that_ends_early_or_goes_on_is_refused(encoding: bytes, cut: int | None, more: bytes) -> None:
    body = PACK[encoding](b"some text")

    with pytest.raises(InvalidRequest):
        unpacked(body[: -cut if cut else None] + more, encoding)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(InvalidRequest, match="'br'"):
        unpacked(b"", b"br")


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"br, deflate;q=0.5, GZIP;q=0.1", "gzip"),
        (b"gzip;q=0, deflate", "deflate"),
        (b"br", ""),
        (b"", ""),
    ],
)
def test_an_answer_is_compressed_as_the_client_takes_it(accepted: bytes, encoding: str) -> None:
    assert encoding_for(accepted) == encoding


def test_a_short_answer_stays_as_it_is() -> None:
    assert encoding_for(b"gzip", b"short") == ""

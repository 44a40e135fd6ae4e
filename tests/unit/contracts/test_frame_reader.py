"""A stream of frames means the same however the network cuts it; what is too long is refused before it is read."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.inference import Tensor
from contracts.worker_protocol import (
    HEADER_BYTES,
    MAX_UNPROVEN_FRAME_BYTES,
    Call,
    Calls,
    Failure,
    FrameReader,
    Heartbeat,
    ProtocolError,
    Result,
    Results,
    decode_from_gateway,
    decode_from_worker,
    frame,
)

_BODIES = st.lists(st.binary(max_size=40), max_size=8)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


@given(_BODIES, st.data())
def test_any_cut_of_a_stream_gives_the_same_frames(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(_framed, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = FrameReader()

    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [body for piece in pieces for body in reader.feed(piece)]

    assert found == bodies


@given(_BODIES, st.integers(1, 30))
def test_a_frame_that_is_not_whole_is_kept_back(bodies: list[bytes], missing: int) -> None:
    stream = b"".join(map(_framed, [*bodies, b"x" * 30]))
    reader = FrameReader()

    first = list(reader.feed(memoryview(stream)[:-missing]))
    second = list(reader.feed(stream[-missing:]))

    assert first == bodies
    assert second == [b"x" * 30]


@given(_BODIES, st.integers(41, 2**32 - 1), st.integers(0, 40))
def test_a_frame_that_is_too_long_is_refused_by_its_header(bodies: list[bytes], length: int, arrived: int) -> None:
    reader = FrameReader(max_frame_bytes=40)
    stream = b"".join(map(_framed, bodies)) + length.to_bytes(HEADER_BYTES, "big") + b"x" * arrived

    frames = reader.feed(stream)
    found = list(islice(frames, len(bodies)))

    assert found == bodies
    with pytest.raises(ProtocolError, match=f"{length} bytes"):
        next(frames)


def test_a_peer_may_send_longer_frames_once_it_has_proven_itself_even_in_the_same_piece() -> None:
    reader = FrameReader()
    long = b"x" * (MAX_UNPROVEN_FRAME_BYTES + 1)

    frames = reader.feed(_framed(b"proof") + _framed(long))
    first = next(frames)
    reader.max_frame_bytes = len(long)

    assert first == b"proof"
    assert list(frames) == [long]


def test_messages_come_out_as_they_went_in() -> None:
    call = Call(1, "sum", 2, None, [Tensor("x", "FP32", [1], b"\0\0\0\0")], ["y"])
    calls, results = (
        Calls([call], together=True),
        Results([Result(1, {"a": [1.5]}, None, 0.1), Failure(2, "model_failed", "m", "t")]),
    )

    bodies = list(FrameReader().feed(frame(calls) + frame(results)))

    assert decode_from_gateway(bodies[0]) == calls
    assert decode_from_worker(bodies[1]) == results


@given(st.binary(max_size=60))
def test_what_is_no_message_is_a_mistake_of_the_protocol_and_nothing_else(body: bytes) -> None:
    for decode in (decode_from_gateway, decode_from_worker):
        with pytest.raises(ProtocolError):
            decode(body + b"\xc1")  # a byte that msgpack never uses


def _nested(depth: int) -> list[Any]:
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


@pytest.mark.parametrize("decode", [decode_from_gateway, decode_from_worker])
def test_a_message_that_is_nested_too_deeply_is_a_mistake_of_the_protocol(decode: Callable[[bytes], object]) -> None:
    deep = msgspec.Raw(b"\x81\xa1a" + b"\x91" * 5000 + b"\x90")
    is_gateway = decode is decode_from_gateway
    message = (
        ["calls", [[1, "m", 1, deep, None, []]], False] if is_gateway else ["results", [["ok", 1, deep, None, 0.0]]]
    )

    with pytest.raises(ProtocolError, match="does not understand"):
        decode(msgspec.msgpack.encode(message))


@pytest.mark.parametrize("document", [{"a": 2**70}, {"a": object()}, {"a": "\ud800"}, {"a": _nested(5000)}])
def test_what_cannot_travel_is_a_mistake_of_the_protocol(document: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="cannot be sent"):
        frame(Results([Result(1, document, None, 0.0)]))


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.worker_protocol.MAX_FRAME_BYTES", 2)

    with pytest.raises(ProtocolError, match="a frame may have 2"):
        frame(Heartbeat(1))


@pytest.mark.parametrize("decode", [decode_from_gateway, decode_from_worker])
def test_text_that_is_no_utf8_is_a_mistake_of_the_protocol(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(ProtocolError, match="utf-8"):
        decode(b"\x91\xa5\x00\x00\x00\x00\xc1")

"""The file comes out of its form the same, however the network cuts the form."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from contracts.errors import InvalidRequest, UploadTooLarge
from service_kit.multipart import OTHER_FIELDS_BYTES, UploadForm

HEADERS = [(b"content-type", b'multipart/form-data; boundary="frame"')]


def request_of(chunks: list[bytes], headers: list[tuple[bytes, bytes]] = HEADERS) -> Request:
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    left = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(left)

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def content_of(request: Request) -> bytes | None:
    form = UploadForm(request, "zip_file")
    if not await form.find():
        return None
    return b"".join([bytes(piece) async for piece in form.chunks()])


def form_of(content: bytes) -> bytes:
    return (
        b'--frame\r\nContent-Disposition: form-data; name="before"\r\n\r\nvalue\r\n'
        b'--frame\r\ncontent-disposition: form-data; name="zip_file"; filename="\xc3\xa4.zip"\r\n'
        b"Content-Type: application/zip\r\n\r\n" + content + b"\r\n"
        b'--frame\r\nContent-Disposition: form-data; name="after"; filename="zip_file"\r\n\r\nvalue\r\n--frame--\r\n'
    )


@given(
    content=st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--frame", b"x"])).map(b"".join)
    ),
    cuts=st.lists(st.integers(0, 500), max_size=8),
)
def test_the_content_survives_any_cut(content: bytes, cuts: list[int]) -> None:
    if b"\r\n--frame" in b"\r\n" + content + b"\r\n":
        content = content.replace(b"--frame", b"")
    body = form_of(content)
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    chunks = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    assert asyncio.run(content_of(request_of(chunks))) == content


def test_a_form_byte_by_byte_is_read_as_one() -> None:
    body = form_of(b"\r\n--fram\r\n--framf" * 3)

    assert asyncio.run(content_of(request_of([bytes([one]) for one in body]))) == b"\r\n--fram\r\n--framf" * 3


def test_a_form_without_the_field_has_no_file() -> None:
    body = b'--frame\r\nContent-Disposition: form-data; name="x"\r\n\r\nv\r\n--frame--\r\n'

    assert asyncio.run(content_of(request_of([body]))) is None


@pytest.mark.parametrize("kept", [0, 10, 150, 250])
def test_a_form_that_ends_early_is_refused(kept: int) -> None:
    with pytest.raises(InvalidRequest, match="last boundary"):
        asyncio.run(content_of(request_of([form_of(b"x" * 100)[:kept]])))


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/zip",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/mixed; boundary=frame",
    ],
)
def test_another_content_type_is_refused_with_what_to_send(content_type: bytes) -> None:
    with pytest.raises(InvalidRequest, match="zip_file"):
        UploadForm(request_of([], [(b"content-type", content_type)]), "zip_file")


def test_a_boundary_longer_than_any_is_refused() -> None:
    headers = [(b"content-type", b"multipart/form-data; boundary=" + b"x" * 3000)]

    with pytest.raises(InvalidRequest, match="boundary"):
        UploadForm(request_of([], headers), "zip_file")


async def texts_of(request: Request, *names: str) -> dict[str, str]:
    form = UploadForm(request, "zip_file", names)
    if await form.find():
        async for _ in form.chunks():
            pass
    return form.texts


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_text_fields_that_are_asked_for_are_read_wherever_they_stand(step: int) -> None:
    body = form_of(b"content")
    chunks = [body[start : start + step] for start in range(0, len(body), step)]

    assert asyncio.run(texts_of(request_of(chunks), "before", "after", "absent")) == {
        "before": "value",
        "after": "value",
    }


def test_text_fields_that_nobody_asked_for_are_passed_over() -> None:
    assert asyncio.run(texts_of(request_of([form_of(b"content")]))) == {}


def test_a_text_field_that_stands_twice_is_refused() -> None:
    part = b'--frame\r\nContent-Disposition: form-data; name="x"\r\n\r\nv\r\n'

    with pytest.raises(InvalidRequest, match="two fields 'x'"):
        asyncio.run(texts_of(request_of([part * 2 + b"--frame--\r\n"]), "x"))


def test_a_text_field_that_is_no_text_is_refused() -> None:
    body = b'--frame\r\nContent-Disposition: form-data; name="x"\r\n\r\n\xff\r\n--frame--\r\n'

    with pytest.raises(InvalidRequest, match="UTF-8"):
        asyncio.run(texts_of(request_of([body]), "x"))


def test_a_text_field_that_is_a_file_in_disguise_is_refused() -> None:
    content = b"x" * (OTHER_FIELDS_BYTES + 1)
    body = b'--frame\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + content + b"\r\n--frame--\r\n"

    with pytest.raises(UploadTooLarge, match="zip_file"):
        asyncio.run(texts_of(request_of([body]), "x"))

"""HTTP as this client speaks it: one pooled connection to one server, and its failures in the client's own errors."""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from inference_client.errors import AnswerNotUnderstood, ClientError, RequestRefused, ServerUnreachable

T = TypeVar("T")
Query = Mapping[str, str | list[str]]

_LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
_SHOWN_CHARACTERS = 300
_BODY_OF_AN_ERROR = 64 * 1024


class _ErrorAnswer(BaseModel):
    """The error body, read leniently: a proxy or an older server may leave out the code."""

    detail: str
    code: str = "http_error"


class Transport:
    """One server. Not for use from several threads at once during an upload or download.

    Raises
    ------
    ClientError
        The address or the CA bundle cannot be used.
    """

    def __init__(self, url: str, ca: Path | None, timeout: timedelta, token: str | None) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        _check_address(self.url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "inference-client"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=timeout.total_seconds(),
            verify=_trust(ca),
            mounts=dict.fromkeys(_LOOPBACK),  # a proxy of the environment is not meant for this machine
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        content: Iterable[bytes] | None = None,
        answer_within: timedelta | None = None,
    ) -> httpx.Response:
        """One exchange whose answer is small.

        Raises
        ------
        ServerUnreachable
            No answer came.
        RequestRefused
            The answer was not a success.
        """
        with self.stream(
            method, path, query=query, headers=headers, content=content, answer_within=answer_within
        ) as answer:
            refuse_unless_success(answer)
            answer.read()
            return answer

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        content: Iterable[bytes] | None = None,
        answer_within: timedelta | None = None,
    ) -> Iterator[httpx.Response]:
        """One exchange whose answer is read by the caller, of whatever status.

        ``answer_within`` is how long each silence of the server may last, where it is longer than the client's timeout.

        Raises
        ------
        ServerUnreachable
            No answer came, or it broke off while the caller read it.
        """
        quiet = max(self.timeout, answer_within or self.timeout)
        timeout = httpx.Timeout(self.timeout.total_seconds(), read=quiet.total_seconds())
        try:
            with self._http.stream(
                method, path, params=dict(query or {}), headers=headers, content=content, timeout=timeout
            ) as answer:
                yield answer
        except httpx.RequestError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.RequestError) -> ServerUnreachable:
        if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
            why = f"gave no connection within {self.timeout.total_seconds():g} s"
        elif isinstance(error, httpx.TimeoutException):
            why = "was silent for too long"
        elif isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = "shows a certificate that is not trusted; name its authority's bundle with 'ca' (--ca)"
        elif isinstance(error, httpx.ConnectError):
            why = f"cannot be reached ({error})"
        else:
            why = f"broke off the connection ({str(error) or type(error).__name__})"
        return ServerUnreachable(f"The server {self.url} {why}.")


def refuse_unless_success(answer: httpx.Response) -> None:
    """Let an answer of 2xx pass.

    Raises
    ------
    RequestRefused
        Any other status; with the server's code and sentence where the body has them.
    """
    if not answer.is_success:
        raise refusal(answer)


def refusal(answer: httpx.Response) -> RequestRefused:
    """The error that an answer stands for; reads its body, up to a bound."""
    if answer.is_redirect:
        return RequestRefused(
            answer.status_code, "moved", f"The server has moved to {answer.headers.get('location')}; use that address."
        )
    body = _beginning(answer)
    try:
        known = _ErrorAnswer.model_validate_json(body)
    except ValidationError:
        text = " ".join(body.decode("utf-8", "replace").split())[:_SHOWN_CHARACTERS]
        known = _ErrorAnswer(detail=f"The server answered {answer.status_code}" + (f": {text}" if text else "."))
    return RequestRefused(answer.status_code, known.code, known.detail, _retry_after(answer))


def parsed(kind: type[T], answer: httpx.Response) -> T:
    """The answer's JSON as a model of the contracts.

    Raises
    ------
    AnswerNotUnderstood
        It is something else.
    """
    try:
        return TypeAdapter(kind).validate_json(answer.content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        server = answer.url.copy_with(path="/", query=None)
        raise AnswerNotUnderstood(
            f"{server} does not answer as this platform does ({where or 'body'}: {first['msg']}); "
            "is the address right, and is the server of the same version?"
        ) from error


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError as error:
        raise ClientError(f"{url!r} is no server address: {error}.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ClientError(f"{url!r} is no server address; it looks like https://inference.example.org:443.")


def _beginning(answer: httpx.Response) -> bytes:
    body = b""
    with suppress(httpx.RequestError):  # cut off in the middle of its sentence: the status still counts
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) >= _BODY_OF_AN_ERROR:
                break
    return body


def _retry_after(answer: httpx.Response) -> timedelta | None:
    """The header in seconds; its date form, which this platform never sends, counts as absent."""
    value = answer.headers.get("retry-after", "")
    return timedelta(seconds=int(value)) if value.isdecimal() else None


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise ClientError(f"{ca} is no readable bundle of CA certificates ({error}).") from error

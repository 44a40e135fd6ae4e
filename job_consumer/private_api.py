"""The consumer's calls to private_api: mechanical, one method per route, errors as ``contracts.errors`` names them.

Safe to use from several threads. Every call has a deadline; nothing is retried here, whoever calls knows better.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from contracts import routes
from contracts.errors import ErrorBody, PlatformError, StorageFull, Unavailable, error_for
from contracts.models import BlobRef
from contracts.tasks import (
    Assignment,
    AttemptRef,
    Claim,
    ClaimRequest,
    ConsumerPresence,
    FinishAnswer,
    FinishReport,
    HeartbeatAnswer,
    HeartbeatRequest,
    PlatformInfo,
    StagingOffer,
    Step,
    TaskOffer,
)

T = TypeVar("T")

_CONNECT = timedelta(seconds=3)
_CALL = timedelta(seconds=15)
_STORE = timedelta(minutes=10)
"""How long private_api may take to sync and acknowledge a large output after its last byte."""
_CHUNK_BYTES = 2**20

_PLATFORM = TypeAdapter(PlatformInfo)
_OFFER = TypeAdapter(TaskOffer)
_STAGING_OFFER = TypeAdapter(StagingOffer)
_CLAIM = TypeAdapter(Claim)
_HEARTBEAT = TypeAdapter(HeartbeatAnswer)
_BLOB = TypeAdapter(BlobRef)
_FINISH = TypeAdapter(FinishAnswer)
_ATTEMPTS = TypeAdapter(list[AttemptRef])
_HASHES = TypeAdapter(list[str])


class Interrupted(Exception):
    """A transfer was broken off here, because its attempt was told to stop."""


class PrivateApi:
    """One consumer's view of private_api."""

    def __init__(self, url: str, token: str, consumer: str, *, has_gpu: bool, takes_cpu: bool = True) -> None:
        self._consumer = consumer
        self._has_gpu = has_gpu
        self._abilities = {"consumer": consumer, "has_gpu": has_gpu, "takes_cpu": takes_cpu}
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_patience(_CALL),
            limits=httpx.Limits(keepalive_expiry=30),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def platform(self) -> PlatformInfo:
        """What this platform is."""
        return _read(_PLATFORM, self._call("GET", routes.PLATFORM))

    def announce(self, presence: ConsumerPresence) -> None:
        """Say that this consumer lives."""
        self._call("PUT", routes.CONSUMER.format(consumer=self._consumer), json=presence.model_dump())

    def next_task(self, wait: timedelta) -> TaskOffer | None:
        """A task id that waits for a consumer like this one; waits for one at most so long."""
        query = {**self._abilities, "wait": wait.total_seconds()}
        answer = self._call("GET", routes.QUEUE_NEXT, params=query, timeout=_patience(wait + _CALL))
        return _read(_OFFER, answer) if answer.content else None

    def peek(self) -> StagingOffer | None:
        """The task that this consumer would probably get next; nothing is reserved."""
        answer = self._call("GET", routes.QUEUE_PEEK, params=self._abilities)
        return _read(_STAGING_OFFER, answer) if answer.content else None

    def claim(self, uid: str) -> Claim:
        """Become the owner of the task's next attempt.

        Raises
        ------
        ClaimRefused
            Another consumer has it, or it is over.
        """
        request = ClaimRequest(consumer=self._consumer, has_gpu=self._has_gpu)
        path = routes.CLAIM.format(uid=quote(uid, safe=""))
        return _read(_CLAIM, self._call("POST", path, json=request.model_dump()))

    def download_input(self, assignment: Assignment, destination: Path, stopped: Event) -> None:
        """Bring the task's zip; its size and SHA-256 are checked.

        Raises
        ------
        Interrupted
            ``stopped`` was set.
        """
        self._download(routes.TASK_INPUT.format(uid=assignment.uid), destination, assignment.input, stopped)

    def download_model(self, assignment: Assignment, destination: Path, stopped: Event) -> None:
        """Bring the model's zip, as :meth:`download_input` does the task's."""
        assert assignment.model.content is not None, "only for a model that has content"  # noqa: S101
        path = routes.MODEL_CONTENT.format(uid=assignment.model.uid)
        self._download(path, destination, assignment.model.content, stopped)

    def heartbeat(self, claim: Claim, step: Step, within: timedelta) -> HeartbeatAnswer:
        """Extend the lease; ``within`` bounds the wait for the answer, for the next heartbeat waits behind this one.

        Raises
        ------
        StaleAttempt
            The task is no longer this attempt's.
        """
        path = routes.HEARTBEAT.format(uid=claim.uid, attempt=claim.attempt)
        request = HeartbeatRequest(consumer=self._consumer, step=step)
        body = request.model_dump(mode="json")
        return _read(_HEARTBEAT, self._call("POST", path, json=body, timeout=_patience(min(within, _CALL))))

    def upload_output(self, claim: Claim, output_zip: Path, stopped: Event) -> BlobRef:
        """Send the output; it counts only once :meth:`finish` names it.

        Raises
        ------
        StaleAttempt, StorageFull, UploadTooLarge
            See their docstrings.
        Interrupted
            ``stopped`` was set.
        """
        path = routes.OUTPUT.format(uid=claim.uid, attempt=claim.attempt)
        answer = self._call(
            "PUT",
            path,
            params={"consumer": self._consumer},
            content=_chunks(output_zip, stopped),
            headers={"Content-Type": "application/zip", "Content-Length": str(output_zip.stat().st_size)},
            timeout=_patience(_STORE),
        )
        return _read(_BLOB, answer)

    def finish(self, claim: Claim, report: FinishReport) -> FinishAnswer:
        """Say how the attempt ended; saying the same twice is harmless.

        Raises
        ------
        StaleAttempt
            The task is no longer this attempt's.
        """
        path = routes.FINISH.format(uid=claim.uid, attempt=claim.attempt)
        return _read(_FINISH, self._call("POST", path, json=report.model_dump(mode="json")))

    def stale_attempts(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Those of the attempts that are no longer current."""
        body = _ATTEMPTS.dump_python(list(attempts), mode="json")
        return _read(_ATTEMPTS, self._call("POST", routes.STALE_ATTEMPTS, json=body))

    def model_content_hashes(self) -> frozenset[str]:
        """SHA-256 of the content of every registered model."""
        hashes = _read(_HASHES, self._call("GET", routes.MODEL_CONTENT_HASHES))
        return frozenset(hashes)

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unavailable(f"private_api does not answer ({type(error).__name__}).") from error
        if answer.is_error:
            raise _error_of(answer)
        return answer

    def _download(self, path: str, destination: Path, expected: BlobRef, stopped: Event) -> None:
        digest = hashlib.sha256()
        size = 0
        try:
            with self._http.stream("GET", path) as answer, destination.open("wb") as sink:
                if answer.is_error:
                    answer.read()
                    raise _error_of(answer)
                for chunk in answer.iter_raw(_CHUNK_BYTES):
                    _check_wanted(stopped)
                    digest.update(chunk)
                    size += len(chunk)
                    sink.write(chunk)
        except httpx.HTTPError as error:
            raise Unavailable(f"private_api does not answer ({type(error).__name__}).") from error
        if BlobRef(sha256=digest.hexdigest(), size=size) != expected:
            raise Unavailable(f"A download came damaged: {size} bytes of {expected.size}, or another content.")


def _patience(length: timedelta) -> httpx.Timeout:
    return httpx.Timeout(length.total_seconds(), connect=_CONNECT.total_seconds(), write=_CALL.total_seconds())


def _check_wanted(stopped: Event) -> None:
    if stopped.is_set():
        raise Interrupted


def _chunks(path: Path, stopped: Event) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            _check_wanted(stopped)
            yield chunk


def _read(kind: TypeAdapter[T], answer: httpx.Response) -> T:
    try:
        return kind.validate_json(answer.content)
    except ValidationError as error:
        what = f"{answer.request.method} {answer.status_code}"
        raise Unavailable(f"private_api gave an answer that this consumer does not understand ({what}).") from error


def _error_of(answer: httpx.Response) -> PlatformError:
    try:
        body = ErrorBody.model_validate_json(answer.content)
    except ValidationError:
        return Unavailable(f"private_api answered {answer.status_code} without saying why.")
    if answer.status_code == 507:
        return StorageFull(body.detail)
    error = error_for(body.code, body.detail)
    if type(error) is PlatformError and answer.is_server_error:  # an accident over there; it may pass
        return Unavailable(body.detail)
    return error

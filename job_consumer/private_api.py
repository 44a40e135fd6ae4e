"""The consumer's calls to private_api: mechanical, one method per route, errors as ``contracts.errors`` names them.

Safe to use from several threads. Every call has a deadline; nothing is retried here, whoever calls knows better.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

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

_CALL = timedelta(seconds=15)
_STORE = timedelta(minutes=10)
"""How long private_api may take to sync and acknowledge a large output after its last byte."""
_CHUNK_BYTES = 2**20

_ATTEMPTS = TypeAdapter(list[AttemptRef])
_HASHES = TypeAdapter(list[str])


class PrivateApi:
    """One consumer's view of private_api."""

    def __init__(self, url: str, token: str, consumer: str, *, has_gpu: bool, takes_cpu: bool = True) -> None:
        self._consumer = consumer
        self._has_gpu = has_gpu
        self._abilities = {"consumer": consumer, "has_gpu": has_gpu, "takes_cpu": takes_cpu}
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(_CALL.total_seconds(), connect=3),
            limits=httpx.Limits(keepalive_expiry=30),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def platform(self) -> PlatformInfo:
        """What this platform is."""
        return PlatformInfo.model_validate_json(self._call("GET", routes.PLATFORM).content)

    def announce(self, presence: ConsumerPresence) -> None:
        """Say that this consumer lives."""
        self._call("PUT", routes.CONSUMER.format(consumer=self._consumer), json=presence.model_dump())

    def next_task(self, wait: timedelta) -> TaskOffer | None:
        """A task id that waits for a consumer like this one; waits for one at most so long."""
        query = {**self._abilities, "wait": wait.total_seconds()}
        answer = self._call("GET", routes.QUEUE_NEXT, params=query, timeout=(wait + _CALL).total_seconds())
        return TaskOffer.model_validate_json(answer.content) if answer.content else None

    def peek(self) -> StagingOffer | None:
        """The task that this consumer would probably get next; nothing is reserved."""
        answer = self._call("GET", routes.QUEUE_PEEK, params=self._abilities)
        return StagingOffer.model_validate_json(answer.content) if answer.content else None

    def claim(self, uid: str) -> Claim:
        """Become the owner of the task's next attempt.

        Raises
        ------
        ClaimRefused
            Another consumer has it, or it is over.
        """
        request = ClaimRequest(consumer=self._consumer, has_gpu=self._has_gpu)
        return Claim.model_validate_json(
            self._call("POST", routes.CLAIM.format(uid=uid), json=request.model_dump()).content
        )

    def download_input(self, assignment: Assignment, destination: Path) -> None:
        """Bring the task's zip; its size and SHA-256 are checked."""
        self._download(routes.TASK_INPUT.format(uid=assignment.uid), destination, assignment.input)

    def download_model(self, assignment: Assignment, destination: Path) -> None:
        """Bring the model's zip; its size and SHA-256 are checked."""
        assert assignment.model.content is not None, "only for a model that has content"  # noqa: S101
        path = routes.MODEL_CONTENT.format(uid=assignment.model.uid)
        self._download(path, destination, assignment.model.content)

    def heartbeat(self, claim: Claim, step: Step) -> HeartbeatAnswer:
        """Extend the lease.

        Raises
        ------
        StaleAttempt
            The task is no longer this attempt's.
        """
        path = routes.HEARTBEAT.format(uid=claim.uid, attempt=claim.attempt)
        request = HeartbeatRequest(consumer=self._consumer, step=step)
        return HeartbeatAnswer.model_validate_json(
            self._call("POST", path, json=request.model_dump(mode="json")).content
        )

    def upload_output(self, claim: Claim, output_zip: Path) -> BlobRef:
        """Send the output; it counts only once :meth:`finish` names it.

        Raises
        ------
        StaleAttempt, StorageFull, UploadTooLarge
            See their docstrings.
        """
        path = routes.OUTPUT.format(uid=claim.uid, attempt=claim.attempt)
        answer = self._call(
            "PUT",
            path,
            params={"consumer": self._consumer},
            content=_chunks(output_zip),
            headers={"Content-Type": "application/zip", "Content-Length": str(output_zip.stat().st_size)},
            timeout=_STORE.total_seconds(),
        )
        return BlobRef.model_validate_json(answer.content)

    def finish(self, claim: Claim, report: FinishReport) -> FinishAnswer:
        """Say how the attempt ended; saying the same twice is harmless.

        Raises
        ------
        StaleAttempt
            The task is no longer this attempt's.
        """
        path = routes.FINISH.format(uid=claim.uid, attempt=claim.attempt)
        return FinishAnswer.model_validate_json(self._call("POST", path, json=report.model_dump(mode="json")).content)

    def stale_attempts(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Those of the attempts that are no longer current."""
        body = _ATTEMPTS.dump_python(list(attempts), mode="json")
        return _ATTEMPTS.validate_json(self._call("POST", routes.STALE_ATTEMPTS, json=body).content)

    def model_content_hashes(self) -> frozenset[str]:
        """SHA-256 of the content of every registered model."""
        return frozenset(_HASHES.validate_json(self._call("GET", routes.MODEL_CONTENT_HASHES).content))

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unavailable(f"private_api does not answer ({type(error).__name__}).") from error
        if answer.is_error:
            raise _error_of(answer)
        return answer

    def _download(self, path: str, destination: Path, expected: BlobRef) -> None:
        digest = hashlib.sha256()
        size = 0
        try:
            with self._http.stream("GET", path) as answer, destination.open("wb") as sink:
                if answer.is_error:
                    answer.read()
                    raise _error_of(answer)
                for chunk in answer.iter_raw(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    sink.write(chunk)
        except httpx.HTTPError as error:
            raise Unavailable(f"private_api does not answer ({type(error).__name__}).") from error
        if BlobRef(sha256=digest.hexdigest(), size=size) != expected:
            raise Unavailable(f"A download came damaged: {size} bytes of {expected.size}, or another content.")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk


def _error_of(answer: httpx.Response) -> PlatformError:
    try:
        body = ErrorBody.model_validate_json(answer.content)
    except ValidationError:
        return Unavailable(f"private_api answered {answer.status_code} without saying why.")
    if answer.status_code == 507:
        return StorageFull(body.detail)
    return error_for(body.code, body.detail)

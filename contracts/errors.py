"""The platform's errors, free of any transport.

    PlatformError
    ├── InvalidRequest            bad input; the caller must change it
    │   ├── LimitAboveCeiling     a model asked for more than the operator allows
    │   ├── HostileArchive        a zip with entries that no honest archive has
    │   └── NotAnArchive          bytes that are not a zip at all
    ├── UploadTooLarge
    ├── NotFound
    │   ├── UnknownModel
    │   └── UnknownTask
    ├── Conflict
    │   ├── DuplicateModel
    │   ├── IllegalTransition     the state machine has no such edge
    │   ├── ClaimRefused          another consumer has the task, or it is over
    │   └── StaleAttempt          a write by an attempt that is no longer the current one
    ├── Unauthorized
    ├── Forbidden
    └── Unavailable               try again later; nothing was lost
        ├── StorageFull
        └── OutcomeUnknown        the answer was lost after the request had gone through whole

``code`` is stable and meant for programs, the message for people. HTTP statuses are chosen at the edge.
"""

from typing import ClassVar

from pydantic import BaseModel


class PlatformError(Exception):
    """Any error that the platform raises on purpose; its message says what was wrong and what to do."""

    code: ClassVar[str] = "platform_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(PlatformError):
    """The request cannot be served as it stands."""

    code = "invalid_request"


class LimitAboveCeiling(InvalidRequest):
    """A model asked for more than the operator's ceiling."""

    code = "limit_above_ceiling"


class HostileArchive(InvalidRequest):
    """The zip holds an entry that is refused: traversal, link, device, duplicate name, bomb."""

    code = "hostile_archive"


class NotAnArchive(InvalidRequest):
    """The bytes are not a readable zip archive."""

    code = "not_an_archive"


class UploadTooLarge(PlatformError):
    """The upload exceeds the configured limit."""

    code = "upload_too_large"


class NotFound(PlatformError):
    """The thing named does not exist."""

    code = "not_found"


class UnknownModel(NotFound):
    """No model is registered under this id."""

    code = "unknown_model"


class UnknownTask(NotFound):
    """No task has this uid, or it was deleted."""

    code = "unknown_task"


class Conflict(PlatformError):
    """The request contradicts what is stored."""

    code = "conflict"


class DuplicateModel(Conflict):
    """The human readable id is taken."""

    code = "duplicate_model"


class IllegalTransition(Conflict):
    """The state machine has no such edge."""

    code = "illegal_transition"

    def __init__(self, from_state: str, to_state: str) -> None:
        super().__init__(f"A task cannot go from {from_state} to {to_state}.")
        self.from_state = from_state
        self.to_state = to_state


class ClaimRefused(Conflict):
    """Another consumer has the task, or it is over: forget the offer."""

    code = "claim_refused"


class StaleAttempt(Conflict):
    """The writing attempt is not the current one: stop, clean up, write nothing more."""

    code = "stale_attempt"


class Unauthorized(PlatformError):
    """The internal token is missing or wrong."""

    code = "unauthorized"


class Forbidden(PlatformError):
    """Nobody may do this here, or not from there."""

    code = "forbidden"


class Unavailable(PlatformError):
    """A dependency is away; the same request may succeed later and nothing was lost."""

    code = "unavailable"


class StorageFull(Unavailable):
    """The disk that holds the platform's files is full."""

    code = "storage_full"


class OutcomeUnknown(Unavailable):
    """The whole request went through and its answer was lost: what was asked for may be done or not."""

    code = "outcome_unknown"


class ErrorBody(BaseModel):
    """The JSON body of every error answer."""

    detail: str
    code: str = PlatformError.code


_BY_CODE: dict[str, type[PlatformError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        LimitAboveCeiling,
        HostileArchive,
        NotAnArchive,
        UploadTooLarge,
        NotFound,
        UnknownModel,
        UnknownTask,
        Conflict,
        DuplicateModel,
        ClaimRefused,
        StaleAttempt,
        Unauthorized,
        Forbidden,
        Unavailable,
        StorageFull,
        OutcomeUnknown,
    )
}


def error_for(code: str, message: str) -> PlatformError:
    """The error that an answer's body stands for, as the side that raised it meant it."""
    return _BY_CODE.get(code, PlatformError)(message)

"""Model images: there already, or pulled with a deadline. Credentials are those of the Docker configuration file."""

from datetime import timedelta
from typing import Literal

from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker.engine import Engine, engine_errors, explanation, is_refusal
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

PullPolicy = Literal["missing", "never"]

_DISK_FULL = "no space left on device"


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine, pull: PullPolicy, pull_within: timedelta) -> None:
        self._engine = engine
        self._pull = pull
        self._pull_within = pull_within

    def ensure(self, tag: str) -> str:
        """Make sure that the image is on the engine; its id.

        Raises
        ------
        ModelRefused
            It is not and cannot be had: the registry refuses, does not know it, or cannot be reached.
        RunnerError
            The engine does not answer, its disk is full, or the pull took too long.
        """
        image = self._find(tag)
        if image is not None:
            return image
        if self._pull == "never":
            raise ModelRefused(f"The image {tag} is not on this host, and pulling is switched off; load it there.")
        log.info("image_pull_begins", image=tag)
        with engine_errors(f"pull {tag}"):
            self._pull_now(tag)
        image = self._find(tag)
        if image is None:
            raise RunnerError(f"The Docker engine pulled {tag}, and does not have it now.")
        log.info("image_pulled", image=tag)
        return image

    def has(self, tag: str) -> bool:
        """Whether the engine has the image already.

        Raises
        ------
        RunnerError
            It does not answer.
        """
        return self._find(tag) is not None

    def any_local(self) -> str | None:
        """The id of some image of this engine; None when it has none."""
        with engine_errors("list its images"):
            found = self._engine.api.images(quiet=True)
        return str(found[0]) if found else None

    def _find(self, tag: str) -> str | None:
        with engine_errors(f"look for the image {tag}"):
            try:
                found = self._engine.api.inspect_image(tag)  # type: ignore[no-untyped-call]
            except ImageNotFound:
                return None
            except APIError as error:
                if is_refusal(error):
                    raise ModelRefused(f"The image name {tag!r} is refused: {explanation(error)}.") from error
                raise
        return str(found["Id"])

    def _pull_now(self, tag: str) -> None:
        deadline = Deadline(self._pull_within)
        repository, version = parse_repository_tag(tag)
        try:
            events = self._engine.api.pull(repository, version or "latest", stream=True, decode=True)
            for event in events:
                if "error" in event:
                    raise _refused(tag, str(event["error"]))
                if deadline.expired:
                    minutes = self._pull_within.total_seconds() / 60
                    raise RunnerError(f"Pulling {tag} took more than {minutes:g} minutes; the next try goes on there.")
        except APIError as error:
            raise _refused(tag, explanation(error)) from error


def _refused(tag: str, reason: str) -> ModelRefused | RunnerError:
    if _DISK_FULL in reason:
        return RunnerError(f"The Docker engine's disk is full: {reason}")
    return ModelRefused(f"The image {tag} is not on this host and cannot be pulled: {reason.rstrip('.')}.")

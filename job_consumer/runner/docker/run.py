"""One run: a container that was created, its volumes, and the watch over it."""

from datetime import timedelta
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import assert_never

from docker.errors import APIError, NotFound

from contracts.models import ModelForRun
from contracts.tasks import LOG_TAIL_BYTES, AttemptRef
from job_consumer.runner.base import RunnerError, RunResult
from job_consumer.runner.docker.engine import (
    ENGINE_ERRORS,
    Engine,
    engine_errors,
    explanation,
    is_images_fault,
    status_of,
)
from job_consumer.runner.docker.exchange import Exchange
from job_consumer.runner.docker.waiting import ExitWatch
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_LOOK_EVERY = timedelta(milliseconds=250)
_DEATH_WITHIN = timedelta(seconds=60)
"""How long a killed container may take to end: a process in uninterruptible sleep (disk, GPU) dies late."""

_NOT_STARTED = 127
_KILLED = 137
_TERMINATED = 143
_FEW_LOG_LINES = 1000


class _End(Enum):
    """What made the run end."""

    ITSELF = "itself"
    TIMEOUT = "timeout"
    CANCEL = "cancel"


class DockerRun:
    """One attempt's container, created and not started; see :class:`job_consumer.runner.base.Run`."""

    def __init__(
        self, engine: Engine, attempt: AttemptRef, model: ModelForRun, exchange: Exchange, max_output_bytes: int
    ) -> None:
        self._engine = engine
        self._attempt = attempt
        self._model = model
        self._exchange = exchange
        self._max_output_bytes = max_output_bytes
        self._container: str | None = None

    @property
    def container(self) -> str:
        """The id of the container."""
        assert self._container is not None, "prepared before it is used"  # noqa: S101
        return self._container

    def attach(self, container: str) -> None:
        """Take charge of the container that was created for this run."""
        self._container = container

    def execute(self, cancelled: Event) -> RunResult:
        """Start the container and wait for its end; see the protocol."""
        refusal = self._start()
        if refusal is not None:
            return RunResult(exit_code=_NOT_STARTED, log_tail=refusal)
        deadline = Deadline(timedelta(seconds=self._model.limits.timeout_seconds))
        watch = ExitWatch(self._engine, self.container)
        end = self._await_end(watch, deadline, cancelled)
        exit_code = watch.exit_code()
        match end:
            case _End.TIMEOUT:
                return RunResult(exit_code, self._log_tail(), timed_out=True)
            case _End.CANCEL:
                return RunResult(exit_code, self._log_tail(), cancelled=True)
            case _End.ITSELF:
                return self._natural_end(exit_code)
            case _:
                assert_never(end)

    def collect(self, output_zip: Path) -> list[str]:
        """Zip the output; see the protocol."""
        return self._exchange.collect(self.container, self._model, output_zip, self._max_output_bytes)

    def discard(self) -> None:
        """Remove container, volumes and folders; see the protocol."""
        if self._container is not None:
            remove_container(self._engine, self._container)
        self._exchange.remove()

    def _start(self) -> str | None:
        """Start the container; the engine's words when it is the image that cannot be started."""
        with engine_errors("start the container"):
            try:
                self._engine.api.start(self.container)
            except APIError as error:
                if is_images_fault(error):
                    return explanation(error)
                raise
        return None

    def _await_end(self, watch: ExitWatch, deadline: Deadline, cancelled: Event) -> _End:
        """Wait until the container has ended, by itself or by our hand.

        A container that ended before our kill reached it ended by itself.
        """
        while not watch.ended(deadline.at_most(_LOOK_EVERY)):
            if cancelled.is_set():
                return self._kill(watch, _End.CANCEL)
            if deadline.expired:
                return self._kill(watch, _End.TIMEOUT)
        return _End.ITSELF

    def _kill(self, watch: ExitWatch, end: _End) -> _End:
        with engine_errors("kill the container"):
            try:
                self._engine.api.kill(self.container)
            except APIError as error:
                if status_of(error) not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                    raise
                end = _End.ITSELF
        if not watch.ended(_DEATH_WITHIN):
            raise RunnerError(f"The container did not end within {_DEATH_WITHIN} of its kill.")
        return end

    def _natural_end(self, exit_code: int) -> RunResult:
        """The result of a model that nobody here stopped.

        SIGTERM or SIGKILL that came neither from us nor from the memory limit may be the engine's own, at its
        shutdown; a model must not be blamed for that.
        """
        out_of_memory = exit_code != 0 and self._was_out_of_memory()
        if exit_code in (_KILLED, _TERMINATED) and not out_of_memory:
            self._engine.check_afresh()
        return RunResult(exit_code, self._log_tail(), out_of_memory=out_of_memory)

    def _was_out_of_memory(self) -> bool:
        with engine_errors("tell how the container ended"):
            return bool(self._engine.api.inspect_container(self.container)["State"]["OOMKilled"])

    def _log_tail(self) -> str:
        """The log's end. Lines are short or few: a thousand are enough nearly always, and the engine keeps 12 MB."""
        with engine_errors("give the container's log"):
            tail = self._engine.api.logs(self.container, tail=_FEW_LOG_LINES)
            if len(tail) < LOG_TAIL_BYTES and tail.count(b"\n") >= _FEW_LOG_LINES:
                tail = self._engine.api.logs(self.container, tail="all")
        return tail[-LOG_TAIL_BYTES:].decode("utf-8", "replace")


def remove_container(engine: Engine, container: str) -> bool:
    """Kill and remove a container with its anonymous volumes (named ones stay); whether it is gone.

    Never raises, what stays is logged.
    """
    try:
        engine.api.remove_container(container, force=True, v=True)
    except NotFound:
        return True
    except (*ENGINE_ERRORS, RunnerError) as error:
        log.warning("container_not_removed", container=container, error=explanation(error))
        return False
    return True

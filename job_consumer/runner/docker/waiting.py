"""Waiting for a container's end, through lost connections and restarts of the engine."""

import threading
from datetime import timedelta
from typing import Any

from docker.errors import NotFound
from requests.exceptions import ConnectionError as EngineAway
from requests.exceptions import Timeout

from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker.engine import ENGINE_ERRORS, Engine, engine_errors, explanation, is_refusal
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_ASK_AGAIN = timedelta(seconds=30)
"""One call waits so long and is then made anew: a connection that died in silence is noticed by that."""
_ATTACH_WITHIN = timedelta(seconds=60)
"""How long the engine may be away in mid-run, for its restart perhaps."""


class ExitWatch:
    """Waits in a thread of its own, so that others can look at the clock meanwhile."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container
        self._ended = threading.Event()
        self._exit_code: int | None = None
        self._failure: RunnerError | None = None
        threading.Thread(target=self._watch, name=f"wait-{container[:12]}", daemon=True).start()

    def ended(self, within: timedelta) -> bool:
        """Whether the container ended, or was lost, within so long from now."""
        return self._ended.wait(within.total_seconds())

    def exit_code(self) -> int:
        """The exit code of the container that ended.

        Raises
        ------
        RunnerError
            The container or the engine was lost.
        """
        if self._failure is not None:
            raise self._failure
        assert self._exit_code is not None, "asked after the end"  # noqa: S101
        return self._exit_code

    def _watch(self) -> None:
        try:
            self._exit_code = self._wait()
        except RunnerError as error:
            self._failure = error
        finally:
            self._ended.set()

    def _wait(self) -> int:
        was_away = False
        while True:
            try:
                code = self._ask()
            except (*ENGINE_ERRORS, RunnerError) as error:
                if isinstance(error, NotFound):
                    raise RunnerError("The container was removed while it ran.") from error
                if is_refusal(error):
                    raise RunnerError(f"The Docker engine has lost the container: {explanation(error)}") from error
                if not _is_silence(error):
                    log.warning("engine_lost", container=self._container, error=explanation(error))
                    was_away = True
                code = self._attach()
            if code is None:
                continue
            if was_away and code != 0:
                raise RunnerError(f"The container ended with exit code {code} while the Docker engine was away.")
            return code

    def _ask(self) -> int | None:
        answer = self._engine.api.wait(self._container, timeout=int(_ASK_AGAIN.total_seconds()))
        return int(answer["StatusCode"])

    def _attach(self) -> int | None:
        """The exit code when the container has ended meanwhile, None when it runs.

        Raises
        ------
        RunnerError
            The engine stays away, or does not have the container any more.
        """
        deadline = Deadline(_ATTACH_WITHIN)
        backoff = Backoff(most=timedelta(seconds=2))
        pause = threading.Event()
        while True:
            try:
                with engine_errors("come back in time"):
                    state: dict[str, Any] = self._engine.api.inspect_container(self._container)["State"]
            except RunnerError as error:
                if deadline.expired or isinstance(error.__cause__, NotFound):
                    raise
                pause.wait(deadline.at_most(backoff.pause()).total_seconds())
                continue
            return None if state["Running"] or state["Status"] == "created" else int(state["ExitCode"])


def _is_silence(error: Exception) -> bool:
    """Whether it is only that nothing happened for as long as one call waits."""
    return isinstance(error, Timeout) or (isinstance(error, EngineAway) and "timed out" in str(error).lower())

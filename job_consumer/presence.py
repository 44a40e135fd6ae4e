"""Tells private_api what this consumer is, and why it takes no task where it could not run one."""

from datetime import timedelta
from threading import Event

from contracts.errors import PlatformError
from contracts.tasks import ConsumerPresence
from job_consumer.private_api import PrivateApi
from job_consumer.runner.base import Runner, RunnerError
from service_kit.logging import get_logger

log = get_logger(__name__)

_EVERY = timedelta(seconds=10)
"""private_api forgets a consumer after three times as long."""


class Announcer:
    """Speaks for one consumer; what it says is shown to whoever asks why a task waits."""

    def __init__(self, private_api: PrivateApi, presence: ConsumerPresence) -> None:
        self._private_api = private_api
        self._presence = presence

    def has_card(self, gpu_uuid: str | None) -> None:
        """From now on name this card."""
        self._presence = self._presence.model_copy(update={"gpu_uuid": gpu_uuid})

    def run(self, runner: Runner, stop: Event) -> None:
        """Say every few seconds that this consumer lives, and whether it could work, until the event is set."""
        while not stop.is_set():
            self.say(_trouble_of(runner))
            stop.wait(_EVERY.total_seconds())

    def say(self, trouble: str | None) -> None:
        """Say it once; nothing happens where private_api is away."""
        try:
            self._private_api.announce(self._presence.model_copy(update={"trouble": trouble}))
        except PlatformError as error:
            log.debug("announce_failed", error=error.message)


def _trouble_of(runner: Runner) -> str | None:
    try:
        runner.check()
    except RunnerError as error:
        return str(error)
    return None

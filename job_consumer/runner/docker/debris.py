"""What attempts left on this host, alive or dead: found by labels alone, never by names."""

from pathlib import Path

from docker.errors import NotFound

from contracts.tasks import AttemptRef
from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker.engine import ENGINE_ERRORS, Engine, engine_errors, explanation
from job_consumer.runner.docker.folders import AttemptFolders, remove_folder
from job_consumer.runner.docker.labels import ATTEMPT, CONSUMER, INSTALLATION, TASK, attempt_of, label_filter
from job_consumer.runner.docker.run import remove_container
from service_kit.logging import get_logger

log = get_logger(__name__)


class Debris:
    """Containers, volumes and folders of one installation's attempts."""

    def __init__(self, engine: Engine, installation: str, folders: AttemptFolders) -> None:
        self._engine = engine
        self._installation = installation
        self._folders = folders

    def attempts(self) -> list[AttemptRef]:
        """All attempts that something is here of, those that run included.

        Raises
        ------
        RunnerError
            The engine does not answer.
        """
        ours = label_filter({INSTALLATION: self._installation})
        with engine_errors("list what it holds"):
            containers = self._engine.api.containers(all=True, filters=ours)
            volumes = self._engine.api.volumes(filters=ours)["Volumes"] or []
        labelled = [attempt_of(found["Labels"]) for found in (*containers, *volumes)]
        in_folders = [attempt for attempt, _ in self._found_folders()]
        return list(dict.fromkeys(attempt for attempt in (*labelled, *in_folders) if attempt is not None))

    def remove(self, attempt: AttemptRef) -> bool:
        """Kill and remove all of one attempt; whether all is gone. Never raises, what stays is found again."""
        try:
            gone = self._remove_from_engine(attempt)
        except RunnerError as error:
            log.warning("leftover_not_removed", task_id=attempt.task_id, attempt=attempt.attempt, error=str(error))
            gone = False
        for owner, folder in self._found_folders():
            if owner == attempt:
                gone &= remove_folder(folder)
        return gone

    def _remove_from_engine(self, attempt: AttemptRef) -> bool:
        its = label_filter(
            {
                INSTALLATION: self._installation,
                TASK: str(attempt.task_id),
                ATTEMPT: str(attempt.attempt),
                CONSUMER: attempt.consumer,
            }
        )
        with engine_errors("list what an attempt left"):
            containers = self._engine.api.containers(all=True, filters=its)
        gone = [remove_container(self._engine, container["Id"]) for container in containers]
        with engine_errors("list what an attempt left"):
            volumes = self._engine.api.volumes(filters=its)["Volumes"] or []
        gone += [self._remove_volume(volume["Name"]) for volume in volumes]
        return all(gone)

    def _remove_volume(self, name: str) -> bool:
        try:
            self._engine.api.remove_volume(name)
        except NotFound:
            return True
        except ENGINE_ERRORS as error:
            log.warning("volume_not_removed", volume=name, error=explanation(error))
            return False
        return True

    def _found_folders(self) -> list[tuple[AttemptRef, Path]]:
        try:
            return list(self._folders.found())
        except OSError as error:
            log.warning("scratch_not_readable", error=str(error))
            return []

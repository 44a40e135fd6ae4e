"""What a model without content finds at its model folder."""

from docker.errors import NotFound
from docker.types import Mount

from contracts.tasks import AttemptRef
from job_consumer.runner.docker.engine import Engine, engine_errors
from job_consumer.runner.docker.labels import Kind, attempt_labels
from job_consumer.runner.docker.run import remove_container

_EMPTY_BYTES = 4096


class ImageFolders:
    """Knows which images bring a folder of their own; each image is asked once."""

    def __init__(self, engine: Engine, installation: str) -> None:
        self._engine = engine
        self._installation = installation
        self._known: dict[tuple[str, str], bool] = {}

    def stand_in(self, image_id: str, path: str, attempt: AttemptRef) -> Mount | None:
        """An empty read-only folder at the path; None where the image has something there itself, which must show.

        Raises
        ------
        RunnerError
            The engine does not answer.
        """
        key = (image_id, path)
        if key not in self._known:
            self._known[key] = self._has(image_id, path, attempt)
        return None if self._known[key] else Mount(path, None, type="tmpfs", read_only=True, tmpfs_size=_EMPTY_BYTES)

    def _has(self, image_id: str, path: str, attempt: AttemptRef) -> bool:
        """Look through a container that is never started; it carries the attempt's labels, should we die here."""
        api = self._engine.api
        labels = attempt_labels(self._installation, Kind.PROBE, attempt)
        with engine_errors("look into the image"):
            host_config = api.create_host_config(network_mode="none")
            created = api.create_container(image_id, ["never-started"], labels=labels, host_config=host_config)
            try:
                with self._engine.archive(created["Id"], path):
                    return True
            except NotFound:
                return False
            finally:
                remove_container(self._engine, created["Id"])

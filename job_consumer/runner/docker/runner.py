"""Prepares runs on a Docker engine, and cleans up after dead ones."""

import threading
from datetime import timedelta
from pathlib import Path

from docker.errors import APIError, ImageNotFound
from docker.types import Mount

from contracts.archives import ArchiveLimits
from contracts.models import ModelForRun
from contracts.tasks import Assignment, AttemptRef
from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker.debris import Debris
from job_consumer.runner.docker.engine import Engine, engine_errors, explanation, is_refusal
from job_consumer.runner.docker.exchange import ArchiveExchange, Exchange, SharedFolderExchange, VolumeMode
from job_consumer.runner.docker.folders import AttemptFolders, remove_folder
from job_consumer.runner.docker.image_folders import ImageFolders
from job_consumer.runner.docker.images import Images, PullPolicy
from job_consumer.runner.docker.labels import Kind, attempt_labels, unique_name
from job_consumer.runner.docker.model_volumes import ModelVolumes
from job_consumer.runner.docker.probe import SharedFolderProbe
from job_consumer.runner.docker.profile import environment, gpu_for, host_options
from job_consumer.runner.docker.run import DockerRun
from job_consumer.runner.room import check_room
from service_kit.logging import get_logger

log = get_logger(__name__)

_PULL_WITHIN = timedelta(minutes=30)


class DockerRunner:
    """Runs models as sibling containers; see :class:`job_consumer.runner.base.Runner`. Threads may share it.

    The engine is the environment's (DOCKER_HOST) unless ``docker_host`` names one, and is first called by
    :meth:`check` or :meth:`prepare`, which also decide how files reach containers where ``mode`` is "auto".
    A model without content finds what its image has at the model folder, else an empty read-only folder.
    """

    def __init__(
        self,
        *,
        scratch: Path,
        installation: str,
        consumer: str,
        archive_limits: ArchiveLimits,
        max_output_bytes: int,
        gpu_uuid: str | None = None,
        mode: VolumeMode = "auto",
        pull: PullPolicy = "missing",
        pull_within: timedelta = _PULL_WITHIN,
        docker_host: str | None = None,
    ) -> None:
        self._scratch = scratch
        self._installation = installation
        self._consumer = consumer
        self._limits = archive_limits
        self._max_output_bytes = max_output_bytes
        self._gpu_uuid = gpu_uuid
        self._engine = Engine(docker_host)
        self._images = Images(self._engine, pull, pull_within)
        self._folders = AttemptFolders(scratch, installation)
        self._models = ModelVolumes(self._engine, installation, consumer, archive_limits)
        self._image_folders = ImageFolders(self._engine, installation)
        self._debris = Debris(self._engine, installation, self._folders)
        self._probe = SharedFolderProbe(self._engine, installation, consumer)
        self._mode = mode
        self._exchange_class: type[Exchange] | None = ArchiveExchange if mode == "archive" else None
        self._deciding = threading.Lock()

    def check(self) -> None:
        """Pass when the engine answers and the scratch folder has room; see the protocol."""
        self._engine.check()
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunnerError(f"The scratch folder {self._scratch} cannot be used: {error}.") from error
        check_room(self._scratch)
        if self._exchange_class is None:
            image = self._images.any_local()
            if image is not None:
                self._decide_exchange(image)

    def prepare(self, assignment: Assignment, input_zip: Path, model_zip: Path | None) -> DockerRun:
        """Stage the bytes and create the container; see the protocol."""
        model = assignment.model
        attempt = AttemptRef(task_id=assignment.task_id, attempt=assignment.attempt, consumer=self._consumer)
        if model.use_gpu and self._gpu_uuid is None:
            raise RunnerError(f"The model {model.human_readable_id} needs a GPU, and this consumer has none.")
        image = self._images.ensure(model.container_tag)
        exchange_class = self._decide_exchange(image)
        try:
            folder = self._folders.create(attempt)
        except OSError as error:
            raise RunnerError(f"The scratch folder did not take a folder: {error}.") from error
        name = unique_name(attempt)
        exchange = exchange_class(self._engine, self._installation, attempt, name, folder, self._limits)
        run = DockerRun(self._engine, attempt, model, exchange, self._max_output_bytes)
        try:
            exchange.stage(input_zip)
            content = self._bring_model(model, image, attempt, model_zip, folder)
            mounts = [*exchange.mounts(model), *self._model_mount(model, image, attempt, content)]
            run.attach(self._create(model, image, attempt, name, mounts))
            self._check_model_is_still_there(model, content)
            exchange.deliver(run.container, model)
        except BaseException:
            run.discard()
            raise
        return run

    def has_model(self, content_sha256: str) -> bool:
        """Whether the engine holds the model content, complete."""
        return self._models.find(content_sha256) is not None

    def leftovers(self) -> list[AttemptRef]:
        """The attempts that containers, volumes or folders here belong to."""
        return self._debris.attempts()

    def remove_leftover(self, attempt: AttemptRef) -> bool:
        """Kill and remove all that belongs to the attempt; whether all is gone."""
        return self._debris.remove(attempt)

    def forget_models(self, known_sha256: frozenset[str]) -> None:
        """Remove the model volumes of unknown or incomplete content that no container uses."""
        try:
            self._models.forget(known_sha256)
        except RunnerError as error:
            log.warning("models_not_forgotten", error=str(error))

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()

    def _bring_model(
        self, model: ModelForRun, image: str, attempt: AttemptRef, model_zip: Path | None, folder: Path
    ) -> str | None:
        """The volume with the model content, filled now where need be; None for a model without content."""
        if model.content is None:
            return None
        return self._models.ensure(model.content.sha256, model_zip, image, attempt, folder)

    def _model_mount(self, model: ModelForRun, image: str, attempt: AttemptRef, volume: str | None) -> list[Mount]:
        if volume is not None:
            return [Mount(model.model_mountpoint, volume, read_only=True, no_copy=True)]
        empty = self._image_folders.stand_in(image, model.model_mountpoint, attempt)
        return [empty] if empty is not None else []

    def _create(self, model: ModelForRun, image: str, attempt: AttemptRef, name: str, mounts: list[Mount]) -> str:
        """Create the container together with its volumes; its id.

        Raises
        ------
        ModelRefused
            The engine finds fault with what the model asks for: two mounts at one place, an image without a command.
        """
        gpu = gpu_for(model, self._gpu_uuid)
        api = self._engine.api
        options = host_options(model.limits, gpu, self._engine.cores)
        with engine_errors("create the container"):
            try:
                created = api.create_container(
                    image,
                    name=name,
                    labels=attempt_labels(self._installation, Kind.RUN, attempt),
                    environment=environment(model, gpu),
                    host_config=api.create_host_config(mounts=mounts, **options),
                )
            except APIError as error:
                if is_refusal(error) and not isinstance(error, ImageNotFound):
                    raise ModelRefused(
                        f"The model {model.human_readable_id} cannot be run as registered: {explanation(error)}."
                    ) from error
                raise
        for warning in created.get("Warnings") or []:
            log.warning("engine_warns", warning=warning)
        return str(created["Id"])

    def _check_model_is_still_there(self, model: ModelForRun, volume: str | None) -> None:
        """Notice content that was forgotten after our look: the engine mounts an empty volume in its place."""
        if model.content is not None and self._models.find(model.content.sha256) != volume:
            raise RunnerError("The model content was removed while the task was staged; the next attempt brings it.")

    def _decide_exchange(self, image: str) -> type[Exchange]:
        """How files reach containers; found out once, with any image that is there.

        Raises
        ------
        RunnerError
            The engine does not answer, or the shared way is demanded and cannot be gone.
        """
        with self._deciding:
            if self._exchange_class is None:
                self._exchange_class = self._probed(image)
            return self._exchange_class

    def _probed(self, image: str) -> type[Exchange]:
        try:
            folder = self._folders.create_probe()
        except OSError as error:
            raise RunnerError(f"The scratch folder {self._scratch} cannot be used: {error}.") from error
        try:
            obstacle = self._probe.why_not(folder, image)
        finally:
            remove_folder(folder)
        if obstacle is None:
            log.info("volumes_through_shared_folder", scratch=str(self._scratch))
            return SharedFolderExchange
        if self._mode == "shared":
            raise RunnerError(f"The scratch folder {self._scratch} cannot be shared with the engine's host. {obstacle}")
        log.info("volumes_through_archive_api", reason=obstacle)
        return ArchiveExchange

"""Model content, kept on the engine: one volume per content, filled once, read by every task that needs it.

Filling goes like this; two consumers, or a crash at any point, cannot make a half-filled volume look complete:

1. A container that is never started is created. Its name is derived from the content, so only one consumer at a time
   succeeds; the others wait. Its volume has a fresh name, is made in the same call, and is in use as long as it exists.
2. The content is written through that container.
3. An empty volume, the *mark*, is created, with the name of the filled volume among its labels. The engine keeps the
   first mark, whoever comes second (a consumer that was stopped for an hour, say) learns that it lost.
4. The container is removed.

A filler whose consumer died carries that attempt's labels: the sweeper removes it as it removes any leftover, and the
waiting consumers go on with step 1. Volumes without a mark and without a filler are removed with :meth:`forget`.
"""

import secrets
import threading
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import Mount

from contracts.archives import ArchiveLimits
from contracts.tasks import AttemptRef
from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker.engine import ENGINE_ERRORS, Engine, engine_errors, explanation, status_of
from job_consumer.runner.docker.exchange import unpack_content
from job_consumer.runner.docker.folders import remove_folder
from job_consumer.runner.docker.labels import (
    CONSUMER,
    CONTENT,
    INSTALLATION,
    KIND,
    VOLUME,
    Kind,
    attempt_labels,
    label_filter,
    model_name,
)
from job_consumer.runner.docker.tar_stream import folder_as_tar, whole_tar
from service_kit.deadline import Deadline, wait_until
from service_kit.logging import get_logger

log = get_logger(__name__)

_FILL_WITHIN = timedelta(minutes=30)
_LOOK_EVERY = timedelta(milliseconds=250)
_WRITE_AT = "/inference-server-model"


class ModelVolumes:
    """The model contents of one installation on one engine; threads of one consumer may share it."""

    def __init__(self, engine: Engine, installation: str, consumer: str, limits: ArchiveLimits) -> None:
        self._engine = engine
        self._installation = installation
        self._consumer = consumer
        self._limits = limits
        self._filling = threading.Lock()

    def find(self, content_sha256: str) -> str | None:
        """The name of the volume that holds the content, complete; None when there is none.

        Raises
        ------
        RunnerError
            The engine does not answer.
        """
        volumes = self._volumes({INSTALLATION: self._installation, CONTENT: content_sha256})
        contents = {found["Name"] for found in volumes if found["Labels"].get(KIND) == Kind.MODEL}
        marked = {found["Labels"][VOLUME] for found in volumes if found["Labels"].get(KIND) == Kind.MODEL_READY}
        return next(iter(contents & marked), None)

    def ensure(self, content_sha256: str, model_zip: Path | None, image: str, attempt: AttemptRef, folder: Path) -> str:
        """The name of the volume with the content; filled from the zip where it is not there yet.

        ``folder`` is the attempt's own, for the unpacked zip.

        Raises
        ------
        ModelRefused
            The zip is damaged or hostile.
        RunnerError
            The engine or the disk failed, there is no zip, or another consumer takes too long over the filling.
        """
        name = self.find(content_sha256)
        if name is not None:
            return name
        if model_zip is None:
            raise RunnerError("The model content was here a moment ago and is gone; the next attempt brings it.")
        deadline = Deadline(_FILL_WITHIN)
        if not self._filling.acquire(timeout=deadline.remaining.total_seconds()):
            raise RunnerError("Another task of this consumer has been filling a model volume for too long.")
        try:
            return self._fill_or_wait(content_sha256, model_zip, image, attempt, folder, deadline)
        finally:
            self._filling.release()

    def forget(self, known_sha256: frozenset[str]) -> None:
        """Remove what belongs to no known content or was never completed, and is in use by no container.

        The mark goes first: whoever creates a container looks at the mark afterwards, so that a volume that vanished
        meanwhile, and that the engine replaced by an empty one, is noticed.

        Raises
        ------
        RunnerError
            The engine does not answer.
        """
        volumes = self._volumes({INSTALLATION: self._installation})
        marks = [found for found in volumes if found["Labels"].get(KIND) == Kind.MODEL_READY]
        contents = [found for found in volumes if found["Labels"].get(KIND) == Kind.MODEL]
        used = self._volumes_in_use()
        keep: set[str] = set()
        for mark in marks:
            filled = mark["Labels"][VOLUME]
            is_whole = any(content["Name"] == filled for content in contents)
            if (mark["Labels"][CONTENT] in known_sha256 and is_whole) or filled in used:
                keep.add(filled)
            else:
                self._remove_volume(mark["Name"])
        for content in contents:
            if content["Name"] not in keep | used:
                self._remove_volume(content["Name"])
                log.info("model_content_removed", volume=content["Name"])

    def _fill_or_wait(
        self, sha256: str, model_zip: Path, image: str, attempt: AttemptRef, folder: Path, deadline: Deadline
    ) -> str:
        while not deadline.expired:
            name = self.find(sha256)
            if name is not None:
                return name
            filler = self._become_filler(sha256, image, attempt)
            if filler is not None:
                return self._fill_as(filler, sha256, model_zip, folder)
            wait_until(lambda: not self._is_being_filled(sha256), deadline, every=_LOOK_EVERY)
        raise RunnerError(
            f"Another consumer has been filling the model volume for {_FILL_WITHIN}; "
            f"see the container {self._filler_name(sha256)}."
        )

    def _become_filler(self, sha256: str, image: str, attempt: AttemptRef) -> "_Filler | None":
        """Create the filling container with its volume; None when another consumer has it."""
        volume = f"{model_name(self._installation, sha256)}-{secrets.token_hex(4)}"
        labels = {INSTALLATION: self._installation, KIND: Kind.MODEL, CONTENT: sha256}
        api = self._engine.api
        with engine_errors("create a container to fill a model volume"):
            try:
                created = api.create_container(
                    image,
                    command=["never-started"],
                    name=self._filler_name(sha256),
                    labels=attempt_labels(self._installation, Kind.FILLER, attempt) | {CONTENT: sha256},
                    host_config=api.create_host_config(
                        network_mode="none", mounts=[Mount(_WRITE_AT, volume, no_copy=True, labels=labels)]
                    ),
                )
            except APIError as error:
                if status_of(error) == HTTPStatus.CONFLICT:
                    return None
                raise
        return _Filler(created["Id"], volume)

    def _is_being_filled(self, sha256: str) -> bool:
        """Whether a living consumer fills it; a filler of a process that had our id before us is removed."""
        with engine_errors("look at the container that fills a model volume"):
            try:
                filler = self._engine.api.inspect_container(self._filler_name(sha256))
            except NotFound:
                return False
        if filler["Config"]["Labels"].get(CONSUMER) == self._consumer:
            self._remove_filler(filler["Id"])
            return False
        return True

    def _fill_as(self, filler: "_Filler", sha256: str, model_zip: Path, folder: Path) -> str:
        """Fill the volume, unless another consumer completed one between our look and our becoming the filler."""
        content = folder / "model"
        complete = False
        try:
            name = self.find(sha256)
            if name is not None:
                return name
            self._remove_volume(self._mark_name(sha256))  # if there is one, its volume is gone
            unpack_content(model_zip, content, self._limits)
            with engine_errors("take the model content"):
                self._engine.api.put_archive(filler.container, "/", whole_tar(folder_as_tar(content, _WRITE_AT)))
                complete = self._mark(sha256, filler.volume)
            if not complete:
                raise RunnerError("Another consumer filled the model volume meanwhile; the next attempt uses that.")
        finally:
            self._remove_filler(filler.container)
            if not complete:
                self._remove_volume(filler.volume)
            remove_folder(content)
        log.info("model_content_filled", volume=filler.volume)
        return filler.volume

    def _mark(self, sha256: str, volume: str) -> bool:
        """Declare the volume complete; False when another volume was declared before."""
        name = self._mark_name(sha256)
        labels = {INSTALLATION: self._installation, KIND: Kind.MODEL_READY, CONTENT: sha256, VOLUME: volume}
        self._engine.api.create_volume(name, labels=labels)
        first = self._engine.api.inspect_volume(name)["Labels"] or {}
        return bool(first.get(VOLUME) == volume)

    def _mark_name(self, sha256: str) -> str:
        return f"{model_name(self._installation, sha256)}-ready"

    def _filler_name(self, sha256: str) -> str:
        return f"{model_name(self._installation, sha256)}-filler"

    def _remove_filler(self, container: str) -> None:
        try:
            self._engine.api.remove_container(container, force=True)
        except NotFound:
            return
        except (*ENGINE_ERRORS, RunnerError) as error:
            log.warning("filler_not_removed", container=container, error=explanation(error))

    def _remove_volume(self, name: str) -> None:
        """Remove a volume if it is there and not in use; what fails is logged and tried again by the next sweep."""
        try:
            self._engine.api.remove_volume(name)
        except (*ENGINE_ERRORS, RunnerError) as error:
            if status_of(error) not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                log.warning("volume_not_removed", volume=name, error=explanation(error))

    def _volumes(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        with engine_errors("list its volumes"):
            found = self._engine.api.volumes(filters=label_filter(labels))
        return list(found["Volumes"] or [])

    def _volumes_in_use(self) -> frozenset[str]:
        with engine_errors("list its containers"):
            containers = self._engine.api.containers(all=True, filters=label_filter({INSTALLATION: self._installation}))
        return frozenset(
            mount["Name"] for container in containers for mount in container["Mounts"] if mount.get("Name")
        )


@dataclass(frozen=True)
class _Filler:
    """A container that is never started, and the volume that is filled through it."""

    container: str
    volume: str

"""How input and output travel between the consumer's disk and a run's two volumes.

*Shared folder*: the volumes are backed by folders that the consumer sees too, so that nothing is copied. It takes a
scratch folder at the same path here and on the engine's host, and root's right to any user's files here, since models
run as whom they like.
*Archive API*: plain volumes, filled and read through the engine; it works with any engine that can be reached.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from docker.errors import APIError, NotFound
from docker.types import DriverConfig, Mount

from contracts.archives import ArchiveLimits
from contracts.errors import HostileArchive, NotAnArchive, UploadTooLarge
from contracts.models import ModelForRun
from contracts.tasks import AttemptRef
from job_consumer.archive import pack, unpack
from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker.engine import ENGINE_ERRORS, Engine, engine_errors, explanation, is_images_fault
from job_consumer.runner.docker.folders import remove_folder
from job_consumer.runner.docker.labels import Kind, attempt_labels
from job_consumer.runner.docker.tar_stream import extract_output, folder_as_tar, whole_tar
from service_kit.logging import get_logger

log = get_logger(__name__)

VolumeMode = Literal["auto", "shared", "archive"]

_ANYBODY = 0o777
"""The model's user is whatever its image says."""


def unpack_content(zip_path: Path, folder: Path, limits: ArchiveLimits) -> None:
    """Unpack a zip into a new folder.

    Raises
    ------
    ModelRefused
        The zip is damaged or hostile.
    RunnerError
        The disk refused.
    """
    try:
        folder.mkdir()
        unpack(zip_path, folder, limits)
    except (HostileArchive, NotAnArchive) as error:
        raise ModelRefused(error.message) from error
    except OSError as error:
        raise RunnerError(f"The scratch folder did not take the content of a zip: {error}.") from error


class Exchange(ABC):
    """The two volumes of one run; ``stage``, ``mounts``, ``deliver``, ``collect``, in this order, then ``remove``."""

    def __init__(
        self, engine: Engine, installation: str, attempt: AttemptRef, name: str, folder: Path, limits: ArchiveLimits
    ) -> None:
        self._engine = engine
        self._installation = installation
        self._attempt = attempt
        self._names = {kind: f"{name}-{kind}" for kind in (Kind.INPUT, Kind.OUTPUT)}
        self._folder = folder
        self._limits = limits
        self._input = folder / Kind.INPUT

    def stage(self, input_zip: Path) -> None:
        """Unpack the input on this host.

        Raises
        ------
        ModelRefused, RunnerError
            See :func:`unpack_content`.
        """
        unpack_content(input_zip, self._input, self._limits)

    def mounts(self, model: ModelForRun) -> list[Mount]:
        """The volumes, which the engine makes together with the container: no call of their own, no gap to crash in."""
        return [
            self._mount(Kind.INPUT, model.input_mountpoint),
            self._mount(Kind.OUTPUT, model.output_mountpoint),
        ]

    def remove(self) -> None:
        """Remove volumes and folders; never raises. The container must be gone."""
        for name in self._names.values():
            try:
                self._engine.api.remove_volume(name)
            except NotFound:
                continue
            except (*ENGINE_ERRORS, RunnerError) as error:
                log.warning("volume_not_removed", volume=name, error=explanation(error))
        remove_folder(self._folder)

    @abstractmethod
    def deliver(self, container: str, model: ModelForRun) -> None:
        """Bring the staged input into the created container's volume, and open the output volume to any user."""

    @abstractmethod
    def collect(self, container: str, model: ModelForRun, output_zip: Path, max_bytes: int) -> list[str]:
        """Zip what the ended container left in its output volume; the names that were skipped."""

    def _mount(self, kind: Kind, target: str) -> Mount:
        return Mount(
            target,
            self._names[kind],
            no_copy=True,  # an image's own files at this path are no input and no output
            labels=attempt_labels(self._installation, kind, self._attempt),
            driver_config=self._driver(kind),
        )

    def _driver(self, _kind: Kind) -> DriverConfig | None:
        return None

    def _pack(self, folder: Path, output_zip: Path, max_bytes: int) -> list[str]:
        try:
            return pack(folder, output_zip, max_bytes, self._limits.max_entries)
        except UploadTooLarge as error:
            raise ModelRefused(error.message) from error
        except OSError as error:
            raise RunnerError(f"The output could not be zipped: {error}.") from error


class SharedFolderExchange(Exchange):
    """Volumes backed by folders below the scratch folder."""

    def stage(self, input_zip: Path) -> None:
        """Unpack the input where the container will see it."""
        super().stage(input_zip)
        try:
            output = self._folder / Kind.OUTPUT
            output.mkdir()
            output.chmod(_ANYBODY)
            self._input.chmod(_ANYBODY)
        except OSError as error:
            raise RunnerError(f"The scratch folder did not take an output folder: {error}.") from error

    def deliver(self, container: str, model: ModelForRun) -> None:
        """Nothing is left to do: the folder is the volume."""

    def collect(self, container: str, model: ModelForRun, output_zip: Path, max_bytes: int) -> list[str]:  # noqa: ARG002
        """Zip the folder in its place."""
        return self._pack(self._folder / Kind.OUTPUT, output_zip, max_bytes)

    def _driver(self, kind: Kind) -> DriverConfig:
        return folder_driver(self._folder / kind)


class ArchiveExchange(Exchange):
    """Plain volumes of the engine."""

    def deliver(self, container: str, model: ModelForRun) -> None:
        """Send both folders in one archive, then forget the copy here."""
        content = whole_tar(
            folder_as_tar(self._input, model.input_mountpoint, _ANYBODY),
            folder_as_tar(self._empty_folder(), model.output_mountpoint, _ANYBODY),
        )
        try:
            with engine_errors("take the input"):
                self._engine.api.put_archive(container, "/", content)
        except RunnerError as error:
            if isinstance(error.__cause__, APIError) and is_images_fault(error.__cause__):
                raise ModelRefused(f"The image has something else at a folder of the model: {error}") from error
            raise
        except OSError as error:
            raise RunnerError(f"The staged input could not be read: {error}.") from error
        remove_folder(self._input)

    def collect(self, container: str, model: ModelForRun, output_zip: Path, max_bytes: int) -> list[str]:
        """Fetch the volume's content into a folder, and zip that."""
        folder = self._folder / Kind.OUTPUT
        remove_folder(folder)
        try:
            folder.mkdir()
            with engine_errors("give the output"), self._engine.archive(container, model.output_mountpoint) as stream:
                skipped = extract_output(stream, folder, max_bytes, self._limits.max_entries)
        except UploadTooLarge as error:
            raise ModelRefused(error.message) from error
        except OSError as error:
            raise RunnerError(f"The scratch folder did not take the output: {error}.") from error
        return skipped + self._pack(folder, output_zip, max_bytes)

    def _empty_folder(self) -> Path:
        folder = self._folder / Kind.OUTPUT
        folder.mkdir(exist_ok=True)
        return folder


def folder_driver(folder: Path) -> DriverConfig:
    """The local driver's options for a volume that is a folder of the engine's host."""
    return DriverConfig("local", options={"type": "none", "o": "bind", "device": str(folder)})

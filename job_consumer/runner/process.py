"""Models as local programs: each run in a bubblewrap sandbox, or as a plain process where there can be none."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Literal

from contracts.archives import ArchiveLimits
from contracts.errors import InvalidRequest, UploadTooLarge
from contracts.models import Limits, ModelForRun
from contracts.tasks import Assignment, AttemptRef
from job_consumer.archive import pack, unpack
from job_consumer.runner.base import ModelRefused, RunnerError, RunResult
from job_consumer.runner.catalogue import Catalogue, LocalModel
from job_consumer.runner.process_tree import kill_marked
from job_consumer.runner.room import check_room
from job_consumer.runner.sandbox import (
    RUN_MARKER,
    Places,
    check_mountpoints,
    own_files,
    plain,
    sandboxed,
    why_no_sandbox,
)
from job_consumer.runner.scratch import RunFolder, Scratch
from job_consumer.runner.supervision import Bubblewrap, Cause, Pipe, Supervisor
from service_kit.logging import get_logger

log = get_logger(__name__)

SandboxPolicy = Literal["auto", "required", "off"]
"""``auto`` runs plain processes where no sandbox can be made, and says so once; ``required`` refuses to start there."""

_KILL_LEFTOVER_WITHIN = timedelta(seconds=10)
_LOST = (
    "Models reach the network, see and may change whatever this user can (other tasks' files, kept model content), "
    "and may leave processes behind; only time, memory, process count and file size are bounded."
)


class ProcessRun:
    """One attempt's program, prepared and not started."""

    def __init__(
        self, folder: RunFolder, places: Places, local: LocalModel, model: ModelForRun, max_output_bytes: int,
        gpu_uuid: str | None, *, sandboxed: bool,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._places = places
        self._command = local.file.command
        self._model = model
        self._max_output_bytes = max_output_bytes
        self._gpu_uuid = gpu_uuid
        self._sandboxed = sandboxed

    def execute(self, cancelled: Event) -> RunResult:
        """Start the program and wait for its end; see :class:`job_consumer.runner.base.Run`."""
        try:
            with ExitStack() as stack:
                ending = self._supervisor(stack).run(cancelled)
        except OSError as error:
            raise RunnerError(f"The model's program could not be started or watched: {error}") from error
        return RunResult(
            exit_code=ending.exit_code,
            log_tail=ending.log_tail,
            timed_out=ending.cause is Cause.TIMED_OUT,
            out_of_memory=ending.cause is Cause.OUT_OF_MEMORY,
            cancelled=ending.cause is Cause.CANCELLED,
        )

    def _supervisor(self, stack: ExitStack) -> Supervisor:
        output = Pipe(stack)
        if not self._sandboxed:
            start = plain(self._places, self._model, self._command, self._max_output_bytes, self._gpu_uuid)
            return Supervisor(start, self._model.limits, output, bubblewrap=None)
        bubblewrap = Bubblewrap(status=Pipe(stack), gate=Pipe(stack, blocking=True))
        start = sandboxed(
            self._places, self._model, self._command, self._max_output_bytes, self._gpu_uuid, bubblewrap.wires
        )
        return Supervisor(start, self._model.limits, output, bubblewrap)

    def collect(self, output_zip: Path) -> list[str]:
        """Zip the output folder; see :class:`job_consumer.runner.base.Run`."""
        try:
            return pack(self._folder.output, output_zip, self._max_output_bytes)
        except UploadTooLarge as error:
            raise ModelRefused(error.message) from error
        except PermissionError as error:
            raise ModelRefused(f"The model left output that cannot be read: {error.filename}") from error
        except OSError as error:
            raise RunnerError(f"The output could not be zipped: {error}") from error

    def discard(self) -> None:
        """Remove the attempt's folders; the program is not running any more, or never was."""
        self._folder.remove()


class ProcessRunner:
    """Runs model folders on this host; a task's program comes from the folder with its model's container tag."""

    def __init__(
        self,
        *,
        scratch: Path,
        model_folders: Sequence[Path],
        consumer: str,
        gpu_uuid: str | None = None,
        archive_limits: ArchiveLimits = ArchiveLimits(),  # noqa: B008 - frozen
        max_output_bytes: int = 200 * 2**30,
        sandbox: SandboxPolicy = "auto",
    ) -> None:
        """Make the scratch folder and find out, by running one, whether sandboxes can be had here.

        Raises
        ------
        RunnerError
            The scratch folder cannot be used, or no sandbox can be had and ``sandbox`` is ``required``.
        """
        self._catalogue = Catalogue(model_folders)
        self._consumer = consumer
        self._gpu_uuid = gpu_uuid
        self._archive_limits = archive_limits
        self._max_output_bytes = max_output_bytes
        self._folder = scratch
        try:
            self._scratch = Scratch(scratch)
            self._why_plain = "switched off" if sandbox == "off" else self._probe()
        except OSError as error:
            raise RunnerError(f"The scratch folder {scratch} cannot be used: {error}") from error
        if self._why_plain and sandbox == "required":
            raise RunnerError(f"No sandbox can be had: {self._why_plain}.")
        if self._why_plain:
            log.warning("models_run_without_sandbox", why=self._why_plain, lost=_LOST)

    @property
    def sandboxed(self) -> bool:
        """Whether models run in a sandbox."""
        return self._why_plain is None

    def _probe(self) -> str | None:
        # Not below the scratch folder, where another consumer's sweeper might find it, and it belongs to no attempt.
        with tempfile.TemporaryDirectory(prefix="inference-probe-") as parent:
            folder = RunFolder(Path(parent, "run"))
            folder.make()
            return why_no_sandbox(Places(folder, app=folder.no_model, model=folder.no_model), _PROBE_MODEL)

    def check(self) -> None:
        """Pass when the scratch folder has room; see :class:`job_consumer.runner.base.Runner`."""
        check_room(self._folder)

    def prepare(self, assignment: Assignment, input_zip: Path, model_zip: Path | None) -> ProcessRun:
        """Unpack what the program will see; see :class:`job_consumer.runner.base.Runner`."""
        model = assignment.model
        check_mountpoints(model)
        local = self._catalogue.find(model.container_tag)
        self._check_means(model)
        attempt = AttemptRef(task_id=assignment.task_id, attempt=assignment.attempt, consumer=self._consumer)
        with ExitStack() as undo:
            try:
                folder = self._scratch.new_run(attempt)
                undo.callback(folder.remove)
                unpack(input_zip, folder.input, self._archive_limits)
                content = self._model_content(model, folder, model_zip)
                if self.sandboxed:
                    own_files(folder)
            except InvalidRequest as error:
                raise ModelRefused(error.message) from error
            except OSError as error:
                raise RunnerError(f"The attempt's folders could not be made: {error}") from error
            undo.pop_all()
        return ProcessRun(
            folder, Places(folder, local.folder, content), local, model, self._max_output_bytes,
            self._gpu_uuid if model.use_gpu else None, sandboxed=self.sandboxed,
        )  # fmt: skip

    def _check_means(self, model: ModelForRun) -> None:
        if model.use_gpu and self._gpu_uuid is None:
            raise RunnerError(f"The model {model.human_readable_id!r} needs a GPU and this consumer has none.")
        if model.limits.capabilities:
            wanted = ", ".join(model.limits.capabilities)
            raise ModelRefused(
                f"The model {model.human_readable_id!r} asks for the capabilities {wanted}; "
                "the process runner gives none. Register it without, or run it in a container."
            )

    def _model_content(self, model: ModelForRun, folder: RunFolder, model_zip: Path | None) -> Path:
        if model.content is None:
            return folder.no_model
        sha256 = model.content.sha256
        content = self._scratch.model(sha256)
        folder.model_link.symlink_to(content)  # from here on forget_models keeps it
        if not self._scratch.has_model(sha256):
            if model_zip is None:
                raise RunnerError("The model content was here and is gone; the next attempt brings it again.")
            folder.new_content.mkdir()
            unpack(model_zip, folder.new_content, self._archive_limits)
            self._scratch.keep_model(folder.new_content, sha256)
        return content

    def has_model(self, content_sha256: str) -> bool:
        """Whether the model content is on this host already, complete."""
        return self._scratch.has_model(content_sha256)

    def leftovers(self) -> list[AttemptRef]:
        """The attempts, of any consumer with this scratch folder, that have a folder here; running ones included."""
        try:
            return list(dict.fromkeys(attempt for attempt, _ in self._scratch.runs()))
        except OSError as error:
            raise RunnerError(f"The scratch folder cannot be read: {error}") from error

    def remove_leftover(self, attempt: AttemptRef) -> bool:
        """Kill what runs of the attempt, which its environment names, and remove its folders; whether all is gone."""
        try:
            folders = [folder for found, folder in self._scratch.runs() if found == attempt]
        except OSError as error:
            log.warning("leftover_not_removed", task=attempt.task_id, attempt=attempt.attempt, why=str(error))
            return False
        gone = True
        for folder in folders:
            if not kill_marked(RUN_MARKER, str(folder.path), _KILL_LEFTOVER_WITHIN):
                log.warning("leftover_still_runs", task=attempt.task_id, attempt=attempt.attempt)
                gone = False
            gone &= folder.remove()
        return gone

    def forget_models(self, known_sha256: frozenset[str]) -> None:
        """Remove content that is unknown and that no run uses. Never raises."""
        try:
            self._scratch.forget_models(known_sha256)
        except OSError as error:
            log.warning("models_not_forgotten", why=str(error))

    def close(self) -> None:
        """Nothing is held between runs."""


_PROBE_MODEL = ModelForRun(
    uid="probe",
    human_readable_id="probe",
    container_tag="probe",
    use_gpu=False,
    input_mountpoint="/input",
    output_mountpoint="/output",
    model_mountpoint="/model",
    limits=Limits(timeout_seconds=20, memory_bytes=1 << 28, cpus=1, pids=16, shm_bytes=1 << 20),
    content=None,
)

"""The client: all calls of one server behind one object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from contracts.model_file import ModelFile
from contracts.models import ModelView, RequestedLimits
from contracts.task_state import TaskState
from contracts.tasks import TaskStatus
from inference_client.crowding import outlasting_crowds
from inference_client.downloading import download_output
from inference_client.model_calls import ModelCalls, Mountpoints, Registration
from inference_client.model_folder import made_content, of_folder
from inference_client.pacing import Duration, as_timedelta
from inference_client.packing import packed
from inference_client.task_calls import TaskCalls
from inference_client.transport import Transport
from inference_client.uploading import OnProgress
from inference_client.waiting import OnStatus, OnTrouble, wait_for_end

T = TypeVar("T")

_DEFAULT_WAIT = timedelta(days=1)


@dataclass(frozen=True)
class RunResult:
    """A task that ended well: its uid, its last status, and the file that holds its output."""

    uid: str
    status: TaskStatus
    output: Path


class InferenceClient:
    """A connection to one inference server; use it in a ``with`` statement, or call :meth:`close`.

    Durations are ``timedelta`` or seconds. Calls that only read may be repeated freely. Of itself the client repeats
    any call that is refused with 429, which nobody has begun to execute; :meth:`submit` and :meth:`add_model` it
    repeats in no other case.

    Parameters
    ----------
    url
        Where the server answers, for example ``https://inference.example.org`` or ``http://127.0.0.1:8000``.
    ca
        A bundle of CA certificates (PEM) for servers whose authority the system does not know.
    timeout
        How long the server may be silent, in any call; waits that are longer by their nature have their own. Also how
        long a call outlasts refusals for too many requests (429).
    token
        Sent as a bearer token, for servers behind a gate that asks for one.

    Examples
    --------
    >>> with InferenceClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     result = client.run("segment-ct", ["scan.dcm"], Path("masks.zip"))
    ...     print(result.status.state)
    finished
    """

    def __init__(
        self, url: str, *, ca: Path | str | None = None, timeout: Duration = 30.0, token: str | None = None
    ) -> None:
        self._transport = Transport(url, Path(ca) if ca is not None else None, as_timedelta(timeout), token)
        self._models = ModelCalls(self._transport)
        self._tasks = TaskCalls(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's address, without a trailing slash."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections; tasks go on."""
        self._transport.close()

    def list_models(self) -> list[ModelView]:
        """All registered models."""
        return self._patiently(self._models.all)

    def get_model(self, human_readable_id: str) -> ModelView:
        """One model.

        Raises
        ------
        RequestRefused
            404, code ``unknown_model``.
        """
        return self._patiently(lambda: self._models.get(human_readable_id))

    def add_model(
        self,
        human_readable_id: str,
        container_tag: str,
        *,
        description: str = "",
        use_gpu: bool = False,
        limits: RequestedLimits | None = None,
        mountpoints: Mountpoints | None = None,
        content: Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> ModelView:
        """Register a model: the image that runs it and, with ``content``, a zip that its containers find in ``/model``.

        Raises
        ------
        RequestRefused
            409 the id is taken; 422 a field or the zip is wrong; 404 or 405 where nobody may register models.

        Examples
        --------
        >>> client.add_model("segment-ct", "registry.example.org/segment-ct:3", use_gpu=True)  # doctest: +SKIP
        """
        registration = Registration(
            human_readable_id=human_readable_id,
            container_tag=container_tag,
            description=description,
            use_gpu=use_gpu,
            limits=limits or RequestedLimits(),
            mountpoints=mountpoints or Mountpoints(),
            content=content,
        )
        return self.register(registration, on_progress)

    def register(self, registration: Registration, on_progress: OnProgress | None = None) -> ModelView:
        """Register a model that is described by one object; raises what :meth:`add_model` raises."""
        return self._patiently(lambda: self._models.add(registration, on_progress))

    def add_model_folder(self, folder: Path, on_progress: OnProgress | None = None) -> ModelView:
        """Register a folder that has a ``model.toml``; its content script, where it has one, makes the model zip.

        Raises
        ------
        InputRefused
            The content script fails.
        InvalidRequest
            The ``model.toml`` is missing or wrong.
        RequestRefused
            As :meth:`add_model`.
        """
        model_file = ModelFile.load(folder)
        with made_content(folder, model_file.content_script) as content:
            return self.register(replace(of_folder(model_file), content=content), on_progress)

    def remove_model(self, human_readable_id: str) -> None:
        """Remove a model.

        Raises
        ------
        RequestRefused
            404 unknown; 409 while live tasks need it.
        """
        self._patiently(lambda: self._models.remove(human_readable_id))

    def submit(self, model: str, zip_path: Path, on_progress: OnProgress | None = None) -> str:
        """Post a zip as a task of a model; the task's uid. Whoever holds the uid may read the result.

        The file is streamed from disk. The post is repeated after a 429 and in no other case.

        Raises
        ------
        SubmissionUncertain
            The answer was lost after the whole file was sent: the task may or may not exist.
        ServerUnreachable
            The connection ended earlier: there is no task.
        RequestRefused
            404 unknown model, 413 too large, 415 not a zip, 422 a hostile one, 503 or 507 not storable now.
        """
        return self._patiently(lambda: self._tasks.submit(model, zip_path, on_progress))

    def status(self, uid: str) -> TaskStatus:
        """State, position in the queue, attempts, timings, error.

        Raises
        ------
        TaskNotFound
            Never existed here, or was deleted.
        """
        return self._patiently(lambda: self._tasks.status(uid))

    def state(self, uid: str) -> TaskState:
        """The state alone."""
        return self.status(uid).state

    def wait(
        self,
        uid: str,
        timeout: Duration = _DEFAULT_WAIT,
        on_status: OnStatus | None = None,
        on_trouble: OnTrouble | None = None,
    ) -> TaskStatus:
        """Wait until the task is finished; its last status.

        A server that is away or overloaded is asked again, with growing pauses, until the time is up.

        Parameters
        ----------
        uid
            The task.
        timeout
            How long to wait in all.
        on_status
            Called with the status every two seconds or sooner, and at the end.
        on_trouble
            Called with each failure that the wait survives.

        Raises
        ------
        WaitTimedOut
            Not over in time; the task goes on.
        TaskFailed, TaskCancelled, OutputMissing, TaskNotFound
            Over, without an output.
        """
        return wait_for_end(self._tasks, uid, as_timedelta(timeout), on_status, on_trouble)

    def download(
        self, uid: str, destination: Path, on_progress: OnProgress | None = None, *, patience: Duration = 60.0
    ) -> None:
        """Fetch the output zip. The destination appears whole or not at all; a file that was there is replaced.

        A download that is cut goes on where it stopped, as long as something comes within ``patience``. Length and
        SHA-256 are checked.

        Raises
        ------
        TaskUnfinished, TaskFailed, TaskCancelled, OutputMissing, TaskNotFound
            There is no output.
        OutputDamaged
            The bytes are not the announced ones.
        ServerUnreachable
            Nothing more came.
        OSError
            The file cannot be written.
        """
        announced = self.status(uid).output
        download_output(self._tasks, uid, destination, announced, on_progress, as_timedelta(patience))

    def logs(self, uid: str) -> str:
        """The end of what the model wrote to stdout and stderr."""
        return self._patiently(lambda: self._tasks.logs(uid))

    def cancel(self, uid: str) -> None:
        """Call the task off and keep its record.

        Raises
        ------
        RequestRefused
            409, the task is over.
        TaskNotFound
            Never existed here, or was deleted.
        """
        self._patiently(lambda: self._tasks.cancel(uid))

    def delete(self, uid: str) -> None:
        """Remove the task, with its files; a live one is called off first.

        Raises
        ------
        TaskNotFound
            Never existed here, or was deleted already.
        """
        self._patiently(lambda: self._tasks.delete(uid))

    def run(
        self,
        model: str,
        inputs: Sequence[Path | str],
        output: Path,
        *,
        timeout: Duration = _DEFAULT_WAIT,
        on_submitted: Callable[[str], None] | None = None,
        on_status: OnStatus | None = None,
    ) -> RunResult:
        """Pack the inputs, submit, wait and download: what :func:`packed`, :meth:`submit`, :meth:`wait` raise and do.

        ``on_submitted`` is told the uid before the wait begins; keep it, to go on after an interruption.

        Examples
        --------
        >>> client.run("segment-ct", ["scan.dcm"], Path("masks.zip"), timeout=timedelta(hours=2))  # doctest: +SKIP
        """
        with packed([Path(each) for each in inputs]) as package:
            uid = self.submit(model, package)
        if on_submitted is not None:
            on_submitted(uid)
        status = self.wait(uid, timeout, on_status)
        self.download(uid, output)
        return RunResult(uid=uid, status=status, output=output)

    def _patiently(self, call: Callable[[], T]) -> T:
        return outlasting_crowds(call, self._transport.timeout)

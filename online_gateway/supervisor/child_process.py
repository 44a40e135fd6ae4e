"""A process that the gateway started, or that a gateway before it had started on the same folder.

A record on disk lets the next gateway find it. A pid alone proves nothing, since the kernel gives it to others later:
the process must have begun when the record says, and carry its id in its environment. Everything here may block.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import psutil

from service_kit.logging import get_logger
from service_kit.settings import environment_for_children

log = get_logger(__name__)

ID_VARIABLE = "WORKER_ID"
"""The variable in a child's environment that holds its id."""
_STDERR = 2
_SAME_START_SECONDS = 2.0
"""The kernel's clock of process starts moves with the wall clock by so much at most while we look."""


class ChildRecord(msgspec.Struct, frozen=True):
    """One child as ``local_workers.json`` has it."""

    worker_id: str
    pool: str
    pid: int | None = None
    """None: its start was about to happen when this was written."""
    create_time: float | None = None


@dataclass
class ChildProcess:
    """One process that runs, or ran."""

    record: ChildRecord
    process: psutil.Process
    popen: "subprocess.Popen[bytes] | None"
    """None where another gateway started it."""
    started: float
    """On the monotonic clock; for one taken over, when that was."""

    @classmethod
    def start(
        cls, record: ChildRecord, command: Sequence[str], environment: Mapping[str, str], folder: Path | None
    ) -> Self:
        """Start it in a process group of its own: a Ctrl-C at the terminal is for the gateway, which ends it in order.

        Raises
        ------
        OSError
        """
        popen = subprocess.Popen(
            command,
            env={**environment, ID_VARIABLE: record.worker_id},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,  # our stdout may be what a program reads from the gateway
            process_group=0,
        )
        process = psutil.Process(popen.pid)
        made = msgspec.structs.replace(record, pid=popen.pid, create_time=process.create_time())
        return cls(made, process, popen, time.monotonic())

    @classmethod
    def find(cls, record: ChildRecord) -> Self | None:
        """The process of the record, if it lives and is the one."""
        if record.pid is None:
            candidates: Iterable[psutil.Process] = psutil.process_iter()
        else:
            candidates = _process(record.pid)
        for process in candidates:
            if _is_it(process, record):
                known = msgspec.structs.replace(record, pid=process.pid, create_time=process.create_time())
                return cls(known, process, None, time.monotonic())
        return None

    @property
    def is_alive(self) -> bool:
        """Whether it runs; collects its status where it is our child."""
        if self.popen is not None:
            return self.popen.poll() is None
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def exit_status(self) -> int | None:
        """Negative: the signal that ended it; None: it runs, or another process was told."""
        return self.popen.poll() if self.popen is not None else None

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        try:
            if self.popen is not None:
                self.popen.wait(seconds)
            else:
                self.process.wait(seconds)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            return not self.is_alive  # a zombie of another process has ended, and goes on being waited for
        return True

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()

    def kill_group(self) -> None:
        """End what it has started, after its own end; what made itself a group of its own is not found."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it and what it started in its process group, at once."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if self.is_alive:
                if os.getpgid(self.process.pid) == self.process.pid:
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.kill()


def _process(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def _is_it(process: psutil.Process, record: ChildRecord) -> bool:
    try:
        begun = process.create_time()
        if record.create_time is not None and abs(begun - record.create_time) > _SAME_START_SECONDS:
            return False
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(ID_VARIABLE) == record.worker_id
    except (psutil.Error, OSError):
        return False


def read_records(path: Path) -> list[ChildRecord]:
    """What the last gateway wrote; nothing where there is no file or it is no such list."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ChildRecord])
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        log.warning("child_records_unreadable", path=str(path), error=str(error))
        return []


def write_records(path: Path, records: Iterable[ChildRecord]) -> None:
    """Replace the file, never leaving half of one.

    Raises
    ------
    OSError
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(list(records)))
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def environment_for(folder: Path) -> dict[str, str]:
    """What of our environment a child gets; it finds our packages first, then what lies in the user's folder."""
    inherited = environment_for_children()
    ours = Path(__file__).resolve().parents[2]
    is_installed = ours.name in {"site-packages", "dist-packages"}
    paths = [*([] if is_installed else [str(ours)]), inherited.get("PYTHONPATH", ""), str(folder.resolve())]
    return {**inherited, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

"""Running one program to its end or to its limits, and keeping the tail of what it prints.

One thread does it all: it waits on the program's pidfd and on the pipe of its output at once, and looks at the clock,
the cancel event and the tree's memory in between. It must be the thread that started the program and live on until the
end: bubblewrap dies with the thread that made it.
"""

import json
import os
import select
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass
from datetime import timedelta
from enum import Enum, auto
from threading import Event

from contracts.models import Limits
from contracts.tasks import LOG_TAIL_BYTES
from job_consumer.runner.base import RunnerError
from job_consumer.runner.process_tree import MemoryGuard, kill_marked, usage_of
from job_consumer.runner.sandbox import RUN_MARKER, ProgramStart, Wires
from service_kit.deadline import Deadline

_TICK = timedelta(milliseconds=50)
_START_WITHIN = timedelta(seconds=20)
_DIE_WITHIN = timedelta(seconds=10)
_READ_BYTES = 1 << 16
_READS_OF_A_FULL_PIPE = 64
KILLED = 128 + signal.SIGKILL


class Cause(Enum):
    """Why a program ended."""

    ITSELF = auto()
    TIMED_OUT = auto()
    OUT_OF_MEMORY = auto()
    TOO_MANY_PROCESSES = auto()
    CANCELLED = auto()


@dataclass(frozen=True)
class Ending:
    """How a program ended; its exit code is 128 + the signal where one killed it."""

    cause: Cause
    exit_code: int
    log_tail: str


class LogTail:
    """The last LOG_TAIL_BYTES of a stream, in memory bounded by twice that and one read."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._kept += data
        if len(self._kept) > 2 * LOG_TAIL_BYTES:
            del self._kept[:-LOG_TAIL_BYTES]

    @property
    def text(self) -> str:
        """The tail, with what is not UTF-8 replaced."""
        return self._kept[-LOG_TAIL_BYTES:].decode("utf-8", "replace")


class Pipe:
    """A pipe whose read end does not block here, unless it is for bubblewrap to block on."""

    def __init__(self, stack: ExitStack, *, blocking: bool = False) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self._stack = stack.enter_context(ExitStack())
        stack.callback(os.close, self.read_fd)
        self._stack.callback(os.close, self.write_fd)
        os.set_blocking(self.read_fd, blocking)

    def close_write(self) -> None:
        """Leave the write end to the program, so that its end is the end of the stream."""
        self._stack.close()

    def open_gate(self) -> None:
        """Let bubblewrap, which blocks on the read end, go on."""
        os.write(self.write_fd, b".")
        self.close_write()

    def read(self) -> bytes | None:
        """What is there: None when nothing is yet, ``b""`` at the end."""
        try:
            return os.read(self.read_fd, _READ_BYTES)
        except BlockingIOError:
            return None

    def read_rest(self) -> bytes:
        """What the pipe still holds when its writers are dead; bounded, should one not be."""
        parts: list[bytes] = []
        while len(parts) < _READS_OF_A_FULL_PIPE and (data := self.read()):
            parts.append(data)
        return b"".join(parts)


@dataclass(frozen=True)
class Bubblewrap:
    """The pipes to a bubblewrap: the one that it reports on, and the one that it waits at before the program starts."""

    status: Pipe
    gate: Pipe

    @property
    def wires(self) -> Wires:
        """The ends that bubblewrap gets."""
        return Wires(self.status.write_fd, self.gate.read_fd)


class Supervisor:
    """Runs one program; in a sandbox when it is given bubblewrap's pipes."""

    def __init__(self, start: ProgramStart, limits: Limits, output: Pipe, bubblewrap: Bubblewrap | None) -> None:
        self._start = start
        self._limits = limits
        self._output = output
        self._bubblewrap = bubblewrap
        self._log = LogTail()
        self._said = b""

    def run(self, cancelled: Event) -> Ending:
        """Start the program and see it end; nothing of it is alive on return.

        Raises
        ------
        RunnerError
            The sandbox could not be made, or something of it did not die.
        OSError
            The host refused a process or a descriptor.
        """
        with ExitStack() as stack:
            process = self._spawn()
            stack.callback(_end_process, process)
            root = process.pid if self._bubblewrap is None else self._root_of_sandbox(self._bubblewrap.status)
            # Neither number can be another's by now: the one waits to be reaped by us, the other stands at the gate.
            process_fd, root_fd = _open_pidfd(process.pid, stack), self._open_root(root, stack)
            try:
                if self._bubblewrap:
                    self._bubblewrap.gate.open_gate()
                cause = self._watch(root, process_fd, cancelled)
            finally:
                self._kill_all(process, root_fd)
            process.wait(_DIE_WITHIN.total_seconds())
        self._log.feed(self._output.read_rest())
        if cause is Cause.TOO_MANY_PROCESSES:
            self._log.feed(f"\nkilled: more than {self._limits.pids} processes and threads\n".encode())
        return Ending(cause, self._exit_code(process.returncode, cause), self._log.text)

    def _spawn(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._start.argv,
            env=dict(self._start.environment),
            cwd=self._start.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output.write_fd,
            stderr=self._output.write_fd,
            pass_fds=astuple(self._bubblewrap.wires) if self._bubblewrap else (),
            start_new_session=True,  # a Ctrl-C at the consumer's terminal is the consumer's alone
        )
        self._output.close_write()
        if self._bubblewrap:
            self._bubblewrap.status.close_write()
        return process

    def _root_of_sandbox(self, status: Pipe) -> int:
        """The pid, as this host sees it, of the sandbox's first process."""
        deadline = Deadline(_START_WITHIN)
        poller = select.poll()
        poller.register(status.read_fd, select.POLLIN)
        while b"\n" not in self._said:
            poller.poll(deadline.remaining.total_seconds() * 1000)
            data = status.read()
            if data == b"" or deadline.expired:
                raise self._no_sandbox()
            self._said += data or b""
        return int(json.loads(self._said.splitlines()[0])["child-pid"])

    def _open_root(self, root: int, stack: ExitStack) -> int:
        try:
            return _open_pidfd(root, stack)
        except ProcessLookupError:  # it got as far as its pid and failed at a mount
            raise self._no_sandbox() from None

    def _no_sandbox(self) -> RunnerError:
        return RunnerError(f"The sandbox could not be made: {self._output.read_rest().decode(errors='replace')}")

    def _watch(self, root: int, process_fd: int, cancelled: Event) -> Cause:
        deadline = Deadline(timedelta(seconds=self._limits.timeout_seconds))
        guard = MemoryGuard(self._limits.memory_bytes)
        most_threads = self._limits.pids + (
            1 if self._bubblewrap else 0
        )  # the sandbox's first process is not the model's
        poller = select.poll()
        poller.register(self._output.read_fd, select.POLLIN)
        poller.register(process_fd, select.POLLIN)
        next_look = 0.0
        while True:
            ready = {fd for fd, _ in poller.poll(deadline.at_most(_TICK).total_seconds() * 1000)}
            if self._output.read_fd in ready and self._read_output() == b"":
                poller.unregister(self._output.read_fd)
            if process_fd in ready:
                return Cause.ITSELF
            if cancelled.is_set():
                return Cause.CANCELLED
            if deadline.expired:
                return Cause.TIMED_OUT
            if time.monotonic() >= next_look:
                usage = usage_of(root)
                if guard.exceeded(usage):
                    return Cause.OUT_OF_MEMORY
                if usage.threads > most_threads:
                    return Cause.TOO_MANY_PROCESSES
                next_look = time.monotonic() + _TICK.total_seconds()

    def _read_output(self) -> bytes | None:
        data = self._output.read()
        self._log.feed(data or b"")
        return data

    def _kill_all(self, process: subprocess.Popen[bytes], root_fd: int) -> None:
        """Kill the tree; the first process of a pid namespace is reported dead once the kernel killed the others."""
        with suppress(ProcessLookupError):
            if self._bubblewrap is None:
                # The leader is not reaped yet, so the number is still its group's.
                os.killpg(process.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(root_fd, signal.SIGKILL)
        poller = select.poll()
        poller.register(root_fd, select.POLLIN)
        if not poller.poll(_DIE_WITHIN.total_seconds() * 1000):
            raise RunnerError(f"The model's processes did not die within {_DIE_WITHIN.total_seconds():g} s of SIGKILL.")
        if self._bubblewrap is None:
            process.wait()
            kill_marked(RUN_MARKER, self._start.environment[RUN_MARKER], _DIE_WITHIN)

    def _exit_code(self, returncode: int, cause: Cause) -> int:
        if cause is not Cause.ITSELF:
            return KILLED
        if self._bubblewrap is None:
            return returncode if returncode >= 0 else 128 - returncode
        for line in (self._said + self._bubblewrap.status.read_rest()).splitlines():
            report = json.loads(line)
            if "exit-code" in report:
                return int(report["exit-code"])
        raise RunnerError(f"The sandbox ended without its program: {self._log.text[-1000:]}")


def _open_pidfd(pid: int, stack: ExitStack) -> int:
    descriptor = os.pidfd_open(pid)
    stack.callback(os.close, descriptor)
    return descriptor


def _end_process(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(_DIE_WITHIN.total_seconds())

"""``infer up`` as a person starts it: the command, its ready line, Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import eventually

INFER = str(Path(sys.executable).parent / "infer")
READY = "InferenceServer is ready at "
ONLINE = "Online endpoints at "


class InferUp:
    """A running ``infer up``; use it in a ``with`` statement."""

    def __init__(self, data: Path, *options: str, **environment: str) -> None:
        command = [INFER, "up", "--data", str(data), "--port", "0", "--online-port", "0", *options]
        began = time.monotonic()
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.data = data
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            ready = eventually(lambda: self._line(READY), 60)
            self.ready_after = time.monotonic() - began
            online = eventually(lambda: self._line(ONLINE), 60)
        except AssertionError:
            self.process.kill()
            self._close()
            raise AssertionError("infer up did not get ready:\n" + "".join(self.lines)) from None
        self.url = ready.removeprefix(READY).split()[0]
        self.online_url = online.removeprefix(ONLINE).split()[0].rstrip(":")

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def _line(self, beginning: str) -> str | None:
        assert self.process.poll() is None, "".join(self.lines)
        return next((line for line in list(self.lines) if line.startswith(beginning)), None)

    def _close(self) -> None:
        self.process.wait(60)
        self._reader.join(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def interrupt(self, within: float = 30) -> int:
        """What Ctrl-C does; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(within)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.interrupt()
        self._close()
        if error is not None:
            sys.stderr.write("".join(self.lines))

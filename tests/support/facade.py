"""A site of the microservice gateway: a copy of ``tests/data/facade``, whose start script runs as it stands there.

Another script may be written into ``folder`` and named.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from tests.support.ports import free_port
from tests.support.waiting import eventually

SITE = Path(__file__).parents[1] / "data" / "facade"
_NOT_INHERITED = {"WORKER_TOKEN", "ADMIN_TOKEN", "ENDPOINTS_FILE", "DATA_DIR", "HOST", "PORT", "WORKER_PORT"}


class FacadeSite:
    """``python run_gateway.py`` in a copy of the site; ended with all that it started on exit."""

    def __init__(self, folder: Path, *options: str, script: str = "run_gateway.py") -> None:
        self.folder = folder / "site"
        self.port = free_port()
        self.log_file = folder / "site.log"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)
        self._script = script
        self._options = options
        shutil.copytree(SITE, self.folder)

    def post(self, path: str, document: Mapping[str, Any], **headers: str) -> httpx.Response:
        """Post the document as JSON."""
        return self.http.post(path, json=document, headers=headers)

    def run(self, signature: str, **inputs: Any) -> dict[str, Any]:
        """The answer to a call that succeeds."""
        answer = self.post("/run", {"SIGNATURE": signature, **inputs})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def said(self) -> list[str]:
        """What the site's own code wrote through its Logger."""
        lines = (json.loads(line) for line in self.log.splitlines() if line.startswith("{"))
        return [line["text"] for line in lines if line.get("action") == "said"]

    def processes(self) -> list[psutil.Process]:
        """The start script's process and all below it."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, self._script, "--port", str(self.port), *self._options],
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            eventually(self._is_ready, 60)
        except BaseException:
            sys.stderr.write(self.log)
            self._end()
            raise
        return self

    def _end(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            left = self.processes()
            self.process.terminate()
            psutil.wait_procs(left, timeout=20)
            for process in left:
                if process.is_running():
                    process.kill()
        self.process.wait(30)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.log)
        self._end()

"""The systems that are measured, each able to start on a port of its own and to say what it answers for 1.5 + 2."""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.waiting import eventually

HERE = Path(__file__).parent
VENVS = HERE.parents[1] / "build" / "bench-online"
NUMBERS = '{"a":1.5,"b":2}'
TENSORS = (
    '{"inputs":[{"name":"a","shape":[1],"datatype":"FP64","data":[1.5]},'
    '{"name":"b","shape":[1],"datatype":"FP64","data":[2]}]}'
)
_START_SECONDS = 120
_STOP_SECONDS = 30
_PIP_SECONDS = 900


class RivalMissing(Exception):
    """A rival could not be installed; the message has pip's last lines."""


@dataclass(frozen=True)
class Target:
    """One route that is asked for the sum."""

    url: str
    body: str = NUMBERS


@dataclass(frozen=True)
class Rival:
    """Another inference server, from the package index, in a virtual environment of its own."""

    name: str
    packages: Sequence[str]
    command: Sequence[str]
    """Arguments after the environment's bin folder; ``{port}`` and ``{second_port}`` are filled in."""
    path: str
    body: str = NUMBERS
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its service is written down; it is started there."""
        return HERE / "rivals" / self.name

    def install(self) -> str:
        """Install it unless it is there; its version.

        Raises
        ------
        RivalMissing
            pip fails.
        """
        place = VENVS / self.name
        if not (place / ".complete").exists():
            venv.create(place, with_pip=True, clear=True)
            command = [str(place / "bin" / "pip"), "install", "--quiet", *self.packages]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
            if done.returncode:
                raise RivalMissing(f"{self.name} cannot be installed: {done.stderr[-500:]}")
            (place / ".complete").touch()
        asked = [
            str(place / "bin" / "python"),
            "-c",
            f"import importlib.metadata as m; print(m.version('{self.name}'))",
        ]
        return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    @contextmanager
    def started(self, folder: Path) -> Iterator[Target]:
        """It serves the sum; stopped at the end."""
        port, second = free_port(), free_port()
        filled = [part.format(port=port, second_port=second) for part in self.command]
        environment = {name: value.format(port=port, second_port=second) for name, value in self.environment.items()}
        command = [str(VENVS / self.name / "bin" / filled[0]), *filled[1:]]
        target = Target(f"http://127.0.0.1:{port}{self.path}", self.body)
        with _process(command, self.folder, environment, folder / f"{self.name}.log"):
            await_sum(target)
            yield target


RIVALS = (
    Rival("litserve", ["litserve"], ["python", "serve.py", "{port}"], "/predict"),
    Rival(
        "bentoml",
        ["bentoml"],
        ["bentoml", "serve", "service:Sum", "--host", "127.0.0.1", "--port", "{port}"],
        "/add",
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Rival(
        "mlserver",
        ["mlserver", "uvloop<0.22"],  # its 1.7 asks for the loop of a thread that has none, which later ones refuse
        ["mlserver", "start", "."],
        "/v2/models/sum/infer",
        TENSORS,
        {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{second_port}"},
    ),
)


@contextmanager
def floor(folder: Path) -> Iterator[Target]:
    """The bare app, as one process."""
    port = free_port()
    target = Target(f"http://127.0.0.1:{port}/")
    command = [sys.executable, "-m", "benchmarks.online.floor", str(port)]
    with _process(command, HERE.parents[1], {}, folder / "floor.log"):
        await_sum(target)
        yield target


def await_sum(target: Target) -> None:
    """Wait until 3.5 is the answer."""

    def answers() -> bool:
        try:
            answer = httpx.post(
                target.url,
                content=target.body,
                headers={"Content-Type": "application/json"},
                timeout=5,
                trust_env=False,
            )
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and "3.5" in answer.text

    eventually(answers, _START_SECONDS, every=0.2)


@contextmanager
def _process(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it, then kill whatever it has left in its session."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return

"""Carries images between hosts as one file. Standard library and the ``docker`` command alone: see ``image_names``."""

import os
import select
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import loads
from pathlib import Path
from typing import IO, Any

SILENCE_SECONDS = 1800.0
"""The longest pause of the engine: before the first byte it gathers all layers on its own disk."""

_CHUNK = 2**20
_INSPECT_SECONDS = 60
_MEGABYTE = 10**6
_STEP = 250 * _MEGABYTE


class CarryError(Exception):
    """The images did not get into the file, or out of it; the message says what to do."""


class Engine:
    """The engine as the ``docker`` command reaches it: at this address, else where DOCKER_HOST or its context says."""

    def __init__(self, address: str | None = None) -> None:
        self._command = ["docker", *(["--host", address] if address else [])]

    def sizes(self, tags: Sequence[str]) -> dict[str, int]:
        """Bytes of each of these images that is there; layers that several share count in each.

        Raises
        ------
        CarryError
            No engine answers.
        """
        found = {}
        for tag in tags:
            try:
                found[tag] = int(self._run("image", "inspect", "--format", "{{.Size}}", tag))
            except CarryError as error:
                if "no such image" not in str(error).lower():
                    raise
        return found

    def label(self, tag: str, name: str) -> str:
        """The value of an image's label; empty where it has none of that name.

        Raises
        ------
        CarryError
            The image is not there, or no engine answers.
        """
        return self._run("image", "inspect", "--format", f'{{{{index .Config.Labels "{name}"}}}}', tag).strip()

    @contextmanager
    def streaming(self, *arguments: str, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A running ``docker`` command; ended with the context, and a CarryError where it failed."""
        with tempfile.TemporaryFile() as complaints:
            process = self._started(arguments, complaints, pipes)
            try:
                yield process
                if process.stdin:
                    process.stdin.close()
                process.wait(SILENCE_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise CarryError(f"docker {arguments[0]}: the engine did nothing for {SILENCE_SECONDS:g} s") from error
            except BrokenPipeError:
                process.wait(_INSPECT_SECONDS)  # it ended early; its complaint says why
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    _close(pipe)
            if process.returncode != 0:
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip()
                raise CarryError(f"docker {arguments[0]} failed: {said or f'status {process.returncode}'}")

    def _started(self, arguments: Sequence[str], complaints: IO[bytes], pipes: Any) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen([*self._command, *arguments], stderr=complaints, **pipes)
        except FileNotFoundError as error:
            raise CarryError("the docker command is not installed (Debian: docker.io)") from error

    def _run(self, *arguments: str) -> str:
        with self.streaming(*arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            return process.stdout.read().decode()


def save(engine: Engine, tags: Sequence[str], file: Path, tell: Callable[[str], None]) -> int:
    """Write the images into the file, which appears when it is complete; its size in bytes.

    Raises
    ------
    CarryError
        An image is missing, no engine answers, or the disk is full.
    """
    here = engine.sizes(tags)
    missing = [tag for tag in tags if tag not in here]
    if missing:
        raise CarryError(
            f"not on this engine: {', '.join(missing)}. Make them with `make images-offline`, or where a registry is "
            "reached with `make images`, `docker pull` for the public ones, and `python -m models_examples.build`."
        )
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as target:
            _receive(engine, tags, target, tell)
            target.flush()
            os.fsync(target.fileno())
            size = target.tell()
        part.replace(file)
    except OSError as error:
        raise CarryError(f"cannot write {file}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return size


def load(engine: Engine, file: Path, tell: Callable[[str], None]) -> list[str]:
    """Bring all images of the file into the engine; their tags.

    Raises
    ------
    CarryError
        The file is damaged or none of ours, or the engine refused it.
    """
    tags = tags_in(file)
    size = file.stat().st_size
    with (
        file.open("rb") as source,
        engine.streaming("load", "--quiet", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        progress = _Progress(tell, f"of {size // _MEGABYTE} MB given to the engine")
        while chunk := source.read(_CHUNK):
            _wait_for([], [process.stdin], "load")
            process.stdin.write(chunk)
            progress.add(len(chunk))
    return tags


def tags_in(file: Path) -> list[str]:
    """The names of the images that ``docker save`` wrote into the file.

    Raises
    ------
    CarryError
        It is no such file, or it was cut short on its way.
    """
    try:
        with tarfile.open(file, mode="r:") as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None  # noqa: S101 - None for folders and links only
            entries = loads(manifest.read())
            return [str(tag) for entry in entries for tag in entry.get("RepoTags") or []]
    except OSError as error:
        raise CarryError(f"cannot read {file}: {error.strerror}") from error
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise CarryError(f"{file} holds no images, or was cut short on its way; carry it again ({error})") from error


def _receive(engine: Engine, tags: Sequence[str], target: IO[bytes], tell: Callable[[str], None]) -> None:
    with engine.streaming("save", *tags, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        progress = _Progress(tell, "written")
        while True:
            _wait_for([process.stdout], [], "save")
            chunk = os.read(process.stdout.fileno(), _CHUNK)
            if not chunk:
                return
            target.write(chunk)
            progress.add(len(chunk))


def _wait_for(readers: Sequence[IO[bytes]], writers: Sequence[IO[bytes]], verb: str) -> None:
    ready = select.select(readers, writers, [], SILENCE_SECONDS)
    if not any(ready):
        raise CarryError(f"docker {verb}: the engine did nothing for {SILENCE_SECONDS:g} s")


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        pass


class _Progress:
    """Tells every so many bytes how many there were."""

    def __init__(self, tell: Callable[[str], None], what: str) -> None:
        self._tell = tell
        self._what = what
        self._bytes = 0

    def add(self, count: int) -> None:
        before, self._bytes = self._bytes, self._bytes + count
        if before // _STEP != self._bytes // _STEP:
            self._tell(f"{self._bytes // _MEGABYTE} MB {self._what}")

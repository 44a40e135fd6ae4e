"""One gibibyte up and down through both services, against bare uvicorn apps; and the services' memory meanwhile."""

import http.client
import json
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from benchmarks.results import NOTHING, Findings, Row, median, times
from benchmarks.surroundings import MODEL, POLLED, Surroundings
from contracts import routes
from contracts.models import BlobRef
from contracts.tasks import Claim, FinishReport, Outcome
from inference_client.uploading import MultipartFile
from tests.support.platform import Platform, Service

_MIB = 2**20
_LEAST_RATIO = 0.6
_MOST_GROWTH_BYTES = 32 * _MIB
_SAMPLE_SECONDS = 0.01
_PATIENCE_SECONDS = 300
_LOOPBACK = "127.0.0.1"


def measure(here: Surroundings) -> Findings:
    """Uploads, then downloads of what was uploaded; floor and ours by turns."""
    size = here.effort.of(1024, 256) * _MIB
    content = _incompressible_zip(here.folder / "large.zip", size)
    rounds = here.effort.of(5, 2)
    with here.platform(POLLED, MIN_FREE_BYTES="0") as platform:
        with platform.client() as client:
            client.add_model(MODEL, "unused:1")
        with _Watch((platform.private, platform.public)).watching() as watch:
            rows = [_uploads(here, platform, content, rounds), _downloads(here, platform, content, rounds)]
        rows += [_memory(name, growth) for name, growth in watch.growth.items()]
    content.unlink()
    return Findings(rows)


def _incompressible_zip(path: Path, size: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("noise", "w", force_zip64=True) as entry,
    ):
        for _ in range(size // _MIB):
            entry.write(os.urandom(_MIB))
    return path


def _uploads(here: Surroundings, platform: Platform, content: Path, rounds: int) -> Row:
    floor: list[float] = []
    ours: list[float] = []
    size = content.stat().st_size
    stored = here.folder / "stored"
    with here.floor_app("stores", FLOOR_FILE=str(stored)) as (host, port):
        for _ in range(rounds):
            floor.append(_timed(_upload, host, port, "/", content))
            stored.unlink()
            ours.append(_timed(_post, platform, content))
    ratio = median([one / other for one, other in zip(floor, ours, strict=True)])
    return Row(
        f"upload of {size / 2**30:.2g} GiB through public_api and private_api",
        _rate(size, floor),
        _rate(size, ours),
        times(ratio),
        f"≥ {times(_LEAST_RATIO)}",
        ratio >= _LEAST_RATIO,
    )


def _downloads(here: Surroundings, platform: Platform, content: Path, rounds: int) -> Row:
    size = content.stat().st_size
    uid = _finished_task(platform, content)
    path = routes.TASK.format(uid=uid)
    floor: list[float] = []
    ours: list[float] = []
    with here.floor_app("sends", FLOOR_FILE=str(content)) as (host, port):
        for _ in range(rounds):
            floor.append(_timed(_download, host, port, "/", size))
            ours.append(_timed(_download, _LOOPBACK, platform.public_port, path, size))
    ratio = median([one / other for one, other in zip(floor, ours, strict=True)])
    return Row("download of the same", _rate(size, floor), _rate(size, ours), times(ratio))


def _timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def _rate(size: int, seconds: list[float]) -> str:
    return f"{size / median(seconds) / 1e6:.0f} MB/s"


def _upload(host: str, port: int, path: str, content: Path) -> bytes:
    """Send the file as one multipart body; the answer."""
    body = MultipartFile(content)
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("POST", path, body=body, headers=body.headers)
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"an upload got {answer.status}: {said.decode(errors='replace')}")
    return said


def _download(host: str, port: int, path: str, size: int) -> None:
    """Receive the whole answer and keep nothing of it."""
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
    buffer = memoryview(bytearray(_MIB))
    received = 0
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        while count := answer.readinto(buffer):
            received += count
    finally:
        connection.close()
    if answer.status != 200 or received != size:
        raise RuntimeError(f"a download got {answer.status} and {received} bytes of {size}")


def _post(platform: Platform, content: Path) -> str:
    path = f"{routes.TASKS}?model_human_readable_id={MODEL}"
    uid: str = json.loads(_upload(_LOOPBACK, platform.public_port, path, content))
    return uid


def _finished_task(platform: Platform, output: Path) -> str:
    """A task whose output is this file, brought by hand as a consumer would."""
    uid = _post(platform, output)
    asked = {"consumer": "by-hand", "has_gpu": False}
    claim = Claim.model_validate(platform.internal("POST", routes.CLAIM.format(uid=uid), json=asked).json())
    whereto = routes.OUTPUT.format(uid=uid, attempt=claim.attempt)
    with output.open("rb") as body:
        sent = platform.internal("PUT", whereto, params={"consumer": "by-hand"}, content=body)
    blob = BlobRef.model_validate(sent.raise_for_status().json())
    report = FinishReport(consumer="by-hand", outcome=Outcome.SUCCEEDED, exit_code=0, output=blob)
    end = routes.FINISH.format(uid=uid, attempt=claim.attempt)
    platform.internal("POST", end, json=report.model_dump(mode="json")).raise_for_status()
    return uid


class _Watch:
    """Samples the resident memory of processes until told to stop."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._before = {service.name: service.rss for service in services}
        self._peak = dict(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def growth(self) -> dict[str, int]:
        """Bytes at the peak above those at the start, by the service's name."""
        return {name: peak - self._before[name] for name, peak in self._peak.items()}

    @contextmanager
    def watching(self) -> Iterator[Self]:
        """Sample while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            for service in self._services:
                self._peak[service.name] = max(self._peak[service.name], service.rss)


def _memory(name: str, growth: int) -> Row:
    return Row(
        f"growth of {name}'s resident memory during both, at the peak",
        NOTHING,
        f"{growth / _MIB:.1f} MiB",
        NOTHING,
        f"≤ {_MOST_GROWTH_BYTES / _MIB:.0f} MiB",
        growth <= _MOST_GROWTH_BYTES,
    )

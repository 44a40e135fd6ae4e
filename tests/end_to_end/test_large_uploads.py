"""A gibibyte travels through both services, and neither holds it in memory."""

import os
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.hostile_models import tag_of
from tests.support.platform import Platform, PlatformMaker

GIBIBYTE = 2**30
MOST_GROWTH = 64 * 2**20


@pytest.fixture
def big_zip(tmp_path: Path) -> Path:
    """A gibibyte that does not compress, in a zip."""
    path = tmp_path / "big.zip"
    block = os.urandom(2**22)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("big.bin", "w", force_zip64=True) as out,
    ):
        for _ in range(GIBIBYTE // len(block)):
            out.write(block)
    return path


@contextmanager
def peak_growth(platform: Platform) -> Iterator[dict[str, int]]:
    """By service, how far its resident memory rose above what it was, sampled a hundred times a second."""
    services = {"public_api": platform.public, "private_api": platform.private}
    idle = {name: service.rss for name, service in services.items()}
    growth = dict.fromkeys(services, 0)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.01):
            for name, service in services.items():
                growth[name] = max(growth[name], service.rss - idle[name])

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield growth
    finally:
        over.set()
        sampler.join()


def test_a_gibibyte_goes_in_and_out_without_being_held_in_memory(
    make_platform: PlatformMaker, big_zip: Path, tmp_path: Path, all_models_folder: Path
) -> None:
    platform = make_platform()
    with platform.client() as client:
        client.add_model("echo_tree", tag_of("echo_tree"))
        with peak_growth(platform) as upload:
            began = time.monotonic()
            uid = client.submit("echo_tree", big_zip)
            upload_seconds = time.monotonic() - began
        platform.start_consumer("process", MODELS_FOLDER=str(all_models_folder))
        client.wait(uid, 150)
        with peak_growth(platform) as download:
            client.download(uid, tmp_path / "out.zip")

    assert max(upload.values()) < MOST_GROWTH, upload
    assert max(download.values()) < MOST_GROWTH, download
    assert (tmp_path / "out.zip").stat().st_size > GIBIBYTE * 0.99
    assert upload_seconds < 120, "a deadline, not a benchmark"

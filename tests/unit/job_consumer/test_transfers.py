"""The folder for zips on their way: removed with its consumer, and by a successor of one that was killed."""

import subprocess
import sys
import threading
from pathlib import Path

from job_consumer.transfers import Transfers

LEAVES_A_ZIP_AND_DIES = """
import os, sys
from pathlib import Path
from job_consumer.transfers import Transfers
with Transfers(Path(sys.argv[1]), "dead") as transfers, transfers.folder() as folder:
    (folder / "input.zip").write_bytes(b"half of it")
    os._exit(9)
"""


def test_nothing_is_left_after_an_orderly_end(tmp_path: Path) -> None:
    with Transfers(tmp_path, "one") as transfers, transfers.folder() as folder:
        (folder / "input.zip").write_bytes(b"bytes")

    assert list((tmp_path / "transfers").iterdir()) == []


def test_what_a_killed_consumer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES_A_ZIP_AND_DIES, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert (tmp_path / "transfers" / "dead").is_dir()

    with Transfers(tmp_path, "next"):
        assert [path.name for path in (tmp_path / "transfers").iterdir()] == ["next"]


def test_a_living_consumers_folder_is_left_alone(tmp_path: Path) -> None:
    with Transfers(tmp_path, "living") as living, living.folder() as folder, Transfers(tmp_path, "next"):
        (folder / "input.zip").write_bytes(b"bytes")

        assert (folder / "input.zip").read_bytes() == b"bytes"


def test_many_that_start_at_once_all_keep_their_folders(tmp_path: Path) -> None:
    begin = threading.Barrier(16)
    kept: list[bool] = []

    def start(number: int) -> None:
        begin.wait(60)
        with Transfers(tmp_path, f"consumer-{number}") as transfers, transfers.folder() as folder:
            begin.wait(60)
            kept.append(folder.is_dir())

    starters = [threading.Thread(target=start, args=(number,)) for number in range(16)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)

    assert kept == [True] * 16

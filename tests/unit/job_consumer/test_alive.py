import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from job_consumer import alive
from job_consumer.alive import AliveFile
from tests.support.waiting import eventually

ONE_THAT_LIVES = """
import sys
from threading import Event
from job_consumer.pulse import Pulse
from datetime import timedelta
from pathlib import Path

with Pulse(Event(), Path(sys.argv[1]), timedelta(milliseconds=20)):
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def consumer(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that gives signs of life until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", ONE_THAT_LIVES, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                assert process.stdin is not None
                process.stdin.close()
                process.wait(60)


def check(folder: Path, *arguments: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "job_consumer.alive", *arguments],
        env={"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_a_consumer_that_gives_signs_is_alive(tmp_path: Path) -> None:
    with consumer(tmp_path) as process:
        assert check(tmp_path) == (0, "")
        assert check(tmp_path, str(process.pid)) == (0, "")


def test_a_consumer_that_was_stopped_is_not_alive_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "FRESH_SECONDS", 0.5)
    with consumer(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)

        said = eventually(lambda: alive.trouble(folder=tmp_path))

    assert f"process {process.pid} gave no sign of life" in said


def test_one_of_several_that_hangs_is_named_and_the_others_are_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "FRESH_SECONDS", 0.5)
    with ExitStack() as stack:
        one, other = (stack.enter_context(consumer(tmp_path)) for _ in range(2))
        one.send_signal(signal.SIGSTOP)

        said = eventually(lambda: alive.trouble(folder=tmp_path))

        assert f"process {one.pid} " in said
        assert alive.trouble(other.pid, tmp_path) is None


def test_a_consumer_that_was_killed_is_none_that_hangs(tmp_path: Path) -> None:
    with consumer(tmp_path) as killed, consumer(tmp_path):
        killed.kill()
        killed.wait(60)

        assert check(tmp_path) == (0, "")
        assert check(tmp_path, str(killed.pid)) == (1, f"no consumer runs as process {killed.pid}\n")


def test_a_consumer_that_ended_in_order_leaves_no_file(tmp_path: Path) -> None:
    with consumer(tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []
    assert check(tmp_path) == (1, "no consumer runs\n")


def test_a_successor_with_the_same_number_takes_the_file_over(tmp_path: Path) -> None:
    left = tmp_path / f"inference-server-consumer-{os.getpid()}.alive"
    left.write_text(f"{0:020.3f}\n")

    file = AliveFile(tmp_path)

    assert alive.trouble(os.getpid(), tmp_path) is None
    file.close()


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / f"inference-server-consumer-{os.getpid()}.alive").symlink_to(target)

    with pytest.raises(OSError, match="symbolic"):
        AliveFile(tmp_path)

    assert target.read_text() == "precious"


@pytest.mark.parametrize("arguments", [["one"], ["1", "2"], ["-1"]])
def test_other_arguments_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    status, said = check(tmp_path, *arguments)

    assert status == 1
    assert said.startswith("usage: ")

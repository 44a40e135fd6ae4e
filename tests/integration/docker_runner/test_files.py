"""Files in and out of containers, on both ways."""

import os
from pathlib import Path
from threading import Event

import pytest

from contracts.archives import ArchiveLimits
from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker import DockerRunner
from tests.support.docker_engine import RUN_INPUT_SCRIPT, MakeDockerRunner, MakeImage
from tests.support.model_runs import an_assignment, run_to_the_end, write_zip

COPY_ALL = "cp -r /input/. /output/"
ODD_NAMES = {
    "with space.txt": b"1",
    "ümläut/日本語.txt": b"2",
    "-rf": b"3",
    "quote'\"$(id).txt": b"4",
    ".hidden/.file": b"5",
    "new\nline": b"6",
    "d/" + "long" * 50: b"7",
    "/".join(["deep"] * 60) + "/leaf": b"8",
}


@pytest.fixture(params=["shared", "archive"])
def runner(request: pytest.FixtureRequest, make_docker_runner: MakeDockerRunner, scratch: Path) -> DockerRunner:
    if request.param == "shared" and os.geteuid() != 0:
        pytest.skip("the shared way takes root")
    return make_docker_runner(scratch, request.param, max_output_bytes=64 * 2**20)


def test_nested_and_empty_folders_and_odd_names_travel_both_ways(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    entries = ODD_NAMES | {"run.sh": COPY_ALL.encode(), "empty/": b"", "nested/empty/too/": b"", "nothing": b""}

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, entries)

    assert done.result.exit_code == 0, done.result.log_tail
    assert done.output == entries
    assert done.skipped == []


def test_many_megabytes_come_through_unchanged(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    bulk = os.urandom(20 * 2**20)

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": COPY_ALL, "bulk": bulk})

    assert done.output["bulk"] == bulk


def test_a_thousand_small_files_come_through(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    entries = {f"folder-{n % 10}/{n}": f"{n}".encode() for n in range(1000)} | {"run.sh": COPY_ALL.encode()}

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, entries)

    assert done.output == entries


def test_a_model_that_writes_nothing_gives_an_empty_zip(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    assert run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": "true"}).output == {}


def test_a_model_that_runs_as_another_user_reads_its_input_and_writes_its_output(
    runner: DockerRunner, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image(*RUN_INPUT_SCRIPT, user="1234:1234")
    script = "umask 077; id -u; mkdir /output/mine; cat /input/sub/data > /output/mine/copy; touch /input/scratch"

    done = run_to_the_end(runner, an_assignment(image), tmp_path, {"run.sh": script, "sub/data": b"read"})

    assert (done.result.exit_code, done.result.log_tail) == (0, "1234\n")
    assert done.output == {"mine/copy": b"read"}


def test_what_the_image_has_at_the_folders_is_neither_input_nor_output(
    runner: DockerRunner, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image(*RUN_INPUT_SCRIPT, extra={"output/stale": b"of the image", "input/stale": b"of the image"})

    done = run_to_the_end(runner, an_assignment(image), tmp_path, {"run.sh": COPY_ALL})

    assert done.output == {"run.sh": COPY_ALL.encode()}


def test_links_and_pipes_are_skipped_and_told(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    script = """
        ln -s /etc/shadow /output/shadow
        ln -s / /output/everything
        mkdir /output/sub && ln -s ../shadow /output/sub/again
        mkfifo /output/pipe
        echo real > /output/real
        """

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": script})

    assert done.result.exit_code == 0, done.result.log_tail
    assert {name: content for name, content in done.output.items() if not name.endswith("/")} == {"real": b"real\n"}
    assert sorted(done.skipped) == ["everything", "pipe", "shadow", "sub/again"]


def test_an_output_folder_that_was_replaced_by_a_link_shows_nothing_of_the_host(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    script = (
        "mkdir /output/sub && echo x > /output/sub/passwd && rm -r /output/sub && ln -s /etc /output/sub; rm -r /output"
    )

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": script})

    assert done.output == {}


def test_two_names_of_one_file_become_two_files(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    done = run_to_the_end(
        runner, an_assignment(tiny_image), tmp_path, {"run.sh": "echo same > /output/a; ln /output/a /output/b"}
    )

    assert done.output == {"a": b"same\n", "b": b"same\n"}


def test_an_output_above_the_bound_is_refused(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="67108864 bytes"):
        run_to_the_end(
            runner,
            an_assignment(tiny_image),
            tmp_path,
            {"run.sh": "dd if=/dev/zero of=/output/sparse bs=1 count=1 seek=1000000000000"},
        )


def test_folders_nested_deeper_than_names_can_say_leave_no_trace(
    runner: DockerRunner, tiny_image: str, tmp_path: Path, scratch: Path
) -> None:
    script = """
        nest() { mkdir $1 && cd $1 && for i in $(seq 600); do mkdir abcde && cd abcde || exit 1; done; }
        nest /output/inner; nest /output/outer; mv /output/inner .; echo real > /output/real
        """

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": script})

    assert done.result.exit_code == 0, done.result.log_tail
    assert done.output["real"] == b"real\n"
    assert not [left for left in scratch.rglob("*") if left.parent != scratch]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"../../x": b""}, "leaves its folder"),
        ({"/etc/x": b""}, "absolute"),
        ({f"{n}": b"" for n in range(20)}, "more than 10 entries"),
    ],
)
def test_a_hostile_input_is_the_tasks_own_fault(
    entries: dict[str, bytes],
    reason: str,
    make_docker_runner: MakeDockerRunner,
    tiny_image: str,
    tmp_path: Path,
    scratch: Path,
) -> None:
    runner = make_docker_runner(scratch, archive_limits=ArchiveLimits(max_entries=10))

    with pytest.raises(ModelRefused, match=reason):
        runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "in.zip", entries), None)


def test_a_damaged_input_is_the_tasks_own_fault(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    damaged = tmp_path / "in.zip"
    damaged.write_bytes(b"PK\x03\x04 and no more")

    with pytest.raises(ModelRefused, match="not a readable zip"):
        runner.prepare(an_assignment(tiny_image), damaged, None)


def test_a_scratch_folder_that_cannot_be_written_is_the_platforms_trouble(
    make_docker_runner: MakeDockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where a folder should be")
    runner = make_docker_runner(occupied, "archive")

    with pytest.raises(RunnerError, match="scratch folder"):
        runner.check()
    with pytest.raises(RunnerError, match="scratch folder"):
        runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "in.zip", {}), None)


def test_collecting_twice_gives_the_same(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "in.zip", {"run.sh": COPY_ALL}), None)
    run.execute(Event())

    run.collect(tmp_path / "first.zip")
    run.collect(tmp_path / "second.zip")
    run.discard()
    run.discard()

    assert (tmp_path / "first.zip").stat().st_size == (tmp_path / "second.zip").stat().st_size

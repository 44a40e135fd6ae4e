"""What every runner does, sandboxed or not, in containers or not: one suite over all of them."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from contracts.tasks import LOG_TAIL_BYTES, AttemptRef
from job_consumer.runner.base import ModelRefused, Run, Runner, RunnerError, RunResult
from job_consumer.runner.process import ProcessRunner
from tests.support.hostile_models import HOSTILE_MODELS, assignment, content_of, tag_of, unzipped, zip_of
from tests.support.requirements import missing
from tests.support.waiting import eventually

Kind = Literal["sandboxed", "plain", "docker-shared", "docker-archive"]
KINDS: tuple[Kind, ...] = ("sandboxed", "plain", "docker-shared", "docker-archive")
ISOLATING: tuple[Kind, ...] = ("sandboxed", "docker-shared", "docker-archive")


@dataclass
class Bench:
    """One runner, and what a test does with it."""

    kind: Kind
    runner: Runner
    tag: Callable[[str], str]
    folder: Path

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    def new_path(self) -> Path:
        return self.folder / f"{next(self._numbers)}.zip"

    def input(self, **files: bytes | str) -> Path:
        return zip_of(self.new_path(), files)

    def prepare(self, name: str, input_zip: Path | None = None, **overrides: Any) -> Run:
        given = input_zip or self.input(a="a")
        return self.runner.prepare(assignment(self.tag(name), **overrides), given, None)

    def run(self, name: str, input_zip: Path | None = None, **overrides: Any) -> tuple[RunResult, dict[str, bytes]]:
        run = self.prepare(name, input_zip, **overrides)
        try:
            result = run.execute(threading.Event())
            output = self.new_path()
            run.collect(output)
            return result, unzipped(output)
        finally:
            run.discard()


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    kind: Kind = request.param
    scratch = tmp_path / "scratch"
    if kind in {"sandboxed", "plain"}:
        runner: Runner = _process_runner(scratch, kind)
        tag = tag_of
    else:
        tag = request.getfixturevalue("hostile_image")
        runner = request.getfixturevalue("make_docker_runner")(scratch, mode=kind.removeprefix("docker-"))
    with closing(runner):
        yield Bench(kind, runner, tag, tmp_path)
        assert runner.leftovers() == []


def _process_runner(scratch: Path, kind: Kind) -> ProcessRunner:
    policy: Literal["required", "off"] = "required" if kind == "sandboxed" else "off"
    try:
        return ProcessRunner(scratch=scratch, model_folders=[HOSTILE_MODELS], consumer="here", sandbox=policy)
    except RunnerError as error:
        missing(str(error))


every_runner = pytest.mark.parametrize("bench", KINDS, indirect=True)
isolating_runners = pytest.mark.parametrize("bench", ISOLATING, indirect=True)


@every_runner
def test_names_bytes_and_folders_reach_the_model_and_come_back(bench: Bench) -> None:
    files = {"top.bin": bytes(range(256)) * 5000, "a/b/c/deep.txt": b"deep", "a/ümlaut 名.txt": b"", "a/empty/": b""}

    result, output = bench.run("echo_tree", zip_of(bench.new_path(), files))

    assert (result.exit_code, output) == (0, files)


@every_runner
def test_mountpoints_are_where_the_model_asked_for_them(bench: Bench) -> None:
    result, output = bench.run(
        "echo_tree",
        bench.input(a="a"),
        input_mountpoint="/data/in",
        output_mountpoint="/data/out",
        model_mountpoint="/weights",
    )

    assert (result.exit_code, output) == (0, {"a": b"a"})


@every_runner
def test_an_empty_output_is_an_empty_zip(bench: Bench) -> None:
    result, output = bench.run("writes_nothing")

    assert result == RunResult(exit_code=0, log_tail="")
    assert output == {}


@every_runner
def test_a_failing_model_gives_its_exit_code_and_its_log(bench: Bench) -> None:
    result, _ = bench.run("fails")

    assert result == RunResult(exit_code=3, log_tail=result.log_tail)
    # Two streams keep their own order only: a container engine reads them apart.
    assert sorted(result.log_tail.splitlines()) == ["reading the weights", "the weights are broken"]


@every_runner
def test_a_model_that_takes_too_long_is_killed_with_all_its_children(bench: Bench) -> None:
    began = time.monotonic()
    result, _ = bench.run("sleeps", timeout_seconds=1.0)

    assert (result.timed_out, result.cancelled, result.out_of_memory) == (True, False, False)
    assert result.exit_code == 137
    assert result.log_tail == "asleep\n"
    assert time.monotonic() - began < 60


@every_runner
def test_a_cancelled_model_is_killed(bench: Bench) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.5, cancelled.set)
    run = bench.prepare("sleeps")
    timer.start()

    result = run.execute(cancelled)
    run.discard()

    assert (result.cancelled, result.timed_out, result.out_of_memory) == (True, False, False)
    assert result.exit_code == 137


@every_runner
def test_a_model_that_exceeds_its_memory_is_told_from_one_that_fails(bench: Bench) -> None:
    result, _ = bench.run("eats_memory", memory_bytes=64 * 2**20)

    assert (result.out_of_memory, result.timed_out, result.cancelled) == (True, False, False)
    assert result.exit_code == 137


@every_runner
def test_a_model_that_starts_too_many_processes_does_not_get_them(bench: Bench) -> None:
    began = time.monotonic()
    result, _ = bench.run("forks", pids=32)

    assert result.exit_code not in {0, None}
    assert not result.timed_out
    assert time.monotonic() - began < 60


@every_runner
def test_a_hundred_megabytes_of_log_leave_their_end(bench: Bench) -> None:
    result, _ = bench.run("prints_100_mb_of_log")

    assert result.exit_code == 0
    assert result.log_tail.endswith(" megabytes ..\n\nthe last line\n")
    assert LOG_TAIL_BYTES // 2 < len(result.log_tail.encode()) <= LOG_TAIL_BYTES


@every_runner
def test_model_content_is_readable(bench: Bench) -> None:
    model_zip = zip_of(bench.new_path(), {"weights.txt": b"1 2 3", "more/weights.txt": b"4"})
    task = assignment(bench.tag("reads_model"), content=content_of(model_zip))

    run = bench.runner.prepare(task, bench.input(a="a"), model_zip)
    result = run.execute(threading.Event())
    run.collect(bench.folder / "output.zip")
    run.discard()

    assert result.exit_code == 0
    assert unzipped(bench.folder / "output.zip") == {"weights.txt": b"1 2 3", "more/weights.txt": b"4"}


@isolating_runners
def test_model_content_is_not_writable(bench: Bench) -> None:
    model_zip = zip_of(bench.new_path(), {"weights.txt": b"1 2 3"})
    task = assignment(bench.tag("writes_to_model"), content=content_of(model_zip))

    run = bench.runner.prepare(task, bench.input(a="a"), model_zip)
    run.execute(threading.Event())
    run.collect(bench.folder / "output.zip")
    run.discard()

    report = unzipped(bench.folder / "output.zip")["report.txt"].decode().splitlines()
    assert report == [f"{what}: refused" for what in ("create", "append", "remove", "rename", "remount")]


@every_runner
def test_a_model_without_content_finds_an_empty_folder(bench: Bench) -> None:
    result, output = bench.run("reads_model")

    assert (result.exit_code, output) == (0, {})


@isolating_runners
def test_the_network_cannot_be_reached(bench: Bench) -> None:
    with closing(socket.create_server(("0.0.0.0", 0))) as listener:
        port = listener.getsockname()[1]
        targets = "\n".join(f"{address}:{port}" for address in _own_addresses())
        result, output = bench.run("tries_network", zip_of(bench.new_path(), {"targets.txt": targets}))

    report = json.loads(output["report.json"])
    assert result.exit_code == 0
    assert report["reached"] == []
    assert report["interfaces"] == ["lo"]


def _own_addresses() -> set[str]:
    """Addresses that this host has, loopback and the one towards the world, or towards itself where there is no world."""
    listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    return {"127.0.0.1", *(address for address in listed if ":" not in address)}


@every_runner
def test_links_and_pipes_in_the_output_are_skipped_by_name(bench: Bench) -> None:
    run = bench.prepare("leaves_links")
    run.execute(threading.Event())

    skipped = run.collect(bench.folder / "output.zip")
    run.discard()

    assert sorted(skipped) == ["folder/root", "inside", "pipe", "shadow"]
    assert unzipped(bench.folder / "output.zip") == {"kept.txt": b"kept\n", "folder/kept.txt": b"kept too\n"}


@every_runner
@pytest.mark.parametrize(
    "files", [{"../escape": b""}, {"/absolute": b""}, {"a": b"", "a/b": b""}], ids=["traversal", "absolute", "conflict"]
)
def test_a_hostile_input_is_refused_and_leaves_nothing(bench: Bench, files: dict[str, bytes]) -> None:
    hostile = zip_of(bench.new_path(), files)

    with pytest.raises(ModelRefused, match="The zip holds"):
        bench.prepare("echo_tree", hostile)

    assert bench.runner.leftovers() == []


@every_runner
def test_a_damaged_input_is_refused_and_leaves_nothing(bench: Bench) -> None:
    damaged = bench.new_path()
    damaged.write_bytes(b"PK\x03\x04 and no more")

    with pytest.raises(ModelRefused, match="zip"):
        bench.prepare("echo_tree", damaged)

    assert bench.runner.leftovers() == []


@every_runner
def test_a_run_is_discarded_as_often_as_one_likes_started_or_not(bench: Bench) -> None:
    never_started = bench.prepare("sleeps")
    ended = bench.prepare("writes_nothing")
    ended.execute(threading.Event())
    assert len(bench.runner.leftovers()) == 2

    for run in (never_started, ended, never_started, ended):
        run.discard()

    assert bench.runner.leftovers() == []


@every_runner
def test_two_runs_of_one_task_do_not_meet(bench: Bench) -> None:
    first = bench.prepare("echo_tree", bench.input(mine="first"))
    second = bench.prepare("echo_tree", bench.input(mine="second"))
    for run in (first, second):
        run.execute(threading.Event())

    first.collect(bench.folder / "first.zip")
    first.discard()
    second.collect(bench.folder / "second.zip")
    second.discard()

    assert unzipped(bench.folder / "first.zip") == {"mine": b"first"}
    assert unzipped(bench.folder / "second.zip") == {"mine": b"second"}


@every_runner
def test_model_content_is_kept_until_it_is_forgotten(bench: Bench) -> None:
    model_zip = zip_of(bench.new_path(), {"weights.txt": b"1 2 3"})
    content = content_of(model_zip)
    task = assignment(bench.tag("reads_model"), content=content)
    assert not bench.runner.has_model(content.sha256)

    bench.runner.prepare(task, bench.input(a="a"), model_zip).discard()
    assert bench.runner.has_model(content.sha256)
    run = bench.runner.prepare(task, bench.input(a="a"), None)
    bench.runner.forget_models(frozenset())
    assert bench.runner.has_model(content.sha256), "a run uses it"
    run.discard()
    bench.runner.forget_models(frozenset({content.sha256}))
    assert bench.runner.has_model(content.sha256), "it is known"
    bench.runner.forget_models(frozenset())

    assert not bench.runner.has_model(content.sha256)


@every_runner
def test_an_unknown_container_tag_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(ModelRefused, match=r"no-such-model:9"):
        bench.runner.prepare(assignment("inference-server-test/no-such-model:9"), bench.input(a="a"), None)


@every_runner
def test_a_runner_that_can_work_passes_its_check(bench: Bench) -> None:
    bench.runner.check()


_DYING_CONSUMER = """
import os, sys, threading
from pathlib import Path
from job_consumer.runner.process import ProcessRunner
from tests.support.hostile_models import HOSTILE_MODELS, assignment

scratch, policy, input_zip = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
runner = ProcessRunner(scratch=scratch, model_folders=[HOSTILE_MODELS], consumer="the dead one", sandbox=policy)
run = runner.prepare(assignment("inference-server-test/sleeps:1", attempt=7), input_zip, None)
threading.Thread(target=run.execute, args=[threading.Event()]).start()
"""


@pytest.mark.parametrize("bench", ["sandboxed", "plain"], indirect=True)
def test_what_a_killed_consumer_left_is_found_by_another_and_removed(bench: Bench) -> None:
    scratch = bench.folder / "scratch"
    policy = "required" if bench.kind == "sandboxed" else "off"
    command = [sys.executable, "-c", _DYING_CONSUMER, str(scratch), policy, str(bench.input(a="a"))]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as consumer:
        eventually(lambda: _marked_processes(scratch))
        consumer.kill()

    left = AttemptRef(task_id=1, attempt=7, consumer="the dead one")
    assert bench.runner.leftovers() == [left]
    assert bench.runner.remove_leftover(left)

    assert bench.runner.leftovers() == []
    assert eventually(lambda: _marked_processes(scratch) == [])


def _marked_processes(scratch: Path) -> list[str]:
    """The processes whose environment names a folder in this scratch folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and os.fsencode(scratch) in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found

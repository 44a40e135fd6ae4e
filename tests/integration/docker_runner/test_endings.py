"""How runs end, and what is told of it."""

import gc
import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import docker
import pytest

from contracts.tasks import LOG_TAIL_BYTES
from job_consumer.runner.base import ModelRefused, RunnerError, RunResult
from job_consumer.runner.docker import DockerRunner
from job_consumer.runner.docker.run import DockerRun
from tests.support.docker_engine import MakeDockerRunner, MakeImage, OwnEngine, root_tar
from tests.support.engine_proxy import EngineProxy
from tests.support.model_runs import an_assignment, limits, run_to_the_end, write_zip
from tests.support.waiting import eventually

PRINT_100_MB = (
    "yes 'a line of this log, as long as lines of logs are, more or less' | head -c 104857600; echo; echo the end"
)


@pytest.fixture
def proxy(docker_engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProxy]:
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    with EngineProxy(tmp_path_factory.mktemp("proxy"), address) as proxy:
        yield proxy


def tar_of_an_empty_file(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def begin(run: DockerRun, cancelled: Event) -> tuple[threading.Thread, list[RunResult | RunnerError]]:
    """Execute in a thread; the list gets the one result."""
    results: list[RunResult | RunnerError] = []

    def execute() -> None:
        try:
            results.append(run.execute(cancelled))
        except RunnerError as error:
            results.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    return thread, results


def is_running(engine: docker.DockerClient, run: DockerRun) -> bool:
    return bool(engine.api.inspect_container(run.container)["State"]["Running"])


@pytest.mark.parametrize("exit_code", [0, 1, 3, 255])
def test_the_exit_code_is_the_models_own(exit_code: int, runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": f"exit {exit_code}"})

    assert done.result == RunResult(exit_code=exit_code, log_tail="")


def test_both_streams_are_in_the_log_and_bytes_that_are_no_text_do_not_hurt(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    done = run_to_the_end(
        runner, an_assignment(tiny_image), tmp_path, {"run.sh": r"echo out; echo err >&2; printf '\377\n'; exit 9"}
    )

    assert sorted(done.result.log_tail.split()) == ["err", "out", "\N{REPLACEMENT CHARACTER}"]


def test_a_model_that_kills_itself_is_told_by_128_and_the_signal(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": "kill -9 $$"})

    assert (done.result.exit_code, done.result.out_of_memory, done.result.timed_out) == (137, False, False)


def test_a_run_ends_at_its_time_limit(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    assignment = an_assignment(tiny_image, limits=limits(timeout_seconds=1))
    began = time.monotonic()

    done = run_to_the_end(runner, assignment, tmp_path, {"run.sh": "trap '' TERM; echo busy; sleep 60"})

    assert done.result == RunResult(exit_code=137, log_tail="busy\n", timed_out=True)
    assert time.monotonic() - began < 45


def test_a_run_ends_soon_after_it_was_cancelled(
    docker_engine: docker.DockerClient, runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {"run.sh": "echo begun; sleep 60"}), None)
    cancelled = Event()
    thread, results = begin(run, cancelled)
    eventually(lambda: docker_engine.api.logs(run.container))

    cancelled.set()
    thread.join(45)
    run.discard()

    assert results == [RunResult(exit_code=137, log_tail="begun\n", cancelled=True)]


def test_a_model_that_takes_too_much_memory_is_told_so(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    assignment = an_assignment(tiny_image, limits=limits(memory_bytes=16 * 2**20))

    done = run_to_the_end(runner, assignment, tmp_path, {"run.sh": "echo hungry; exec tail /dev/zero"})

    assert done.result == RunResult(exit_code=137, log_tail="hungry\n", out_of_memory=True)


def test_a_child_that_was_killed_for_memory_explains_the_failure(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    assignment = an_assignment(tiny_image, limits=limits(memory_bytes=16 * 2**20))

    done = run_to_the_end(runner, assignment, tmp_path, {"run.sh": "tail /dev/zero; exit 4"})

    assert (done.result.exit_code, done.result.out_of_memory) == (4, True)


def test_the_end_of_an_endless_log_is_kept(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    began = time.monotonic()

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": PRINT_100_MB})

    assert done.result.exit_code == 0
    assert done.result.log_tail.endswith("\nthe end\n")
    assert len(done.result.log_tail.encode()) == LOG_TAIL_BYTES
    assert time.monotonic() - began < 60


def test_the_tail_is_whole_also_where_lines_are_very_short(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": "yes '' | head -n 200000"})

    assert done.result.log_tail == "\n" * LOG_TAIL_BYTES


def test_an_image_whose_program_is_missing_is_the_models_failure(
    runner: DockerRunner, make_image: MakeImage, tmp_path: Path
) -> None:
    done = run_to_the_end(runner, an_assignment(make_image("/bin/no-such-program")), tmp_path, {})

    assert done.result.exit_code == 127
    assert "no-such-program" in done.result.log_tail


def test_an_image_for_another_machine_is_the_models_failure(
    runner: DockerRunner, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image("/bin/foreign", extra={"bin/foreign": b"\x7fELF and nothing that runs here"})

    done = run_to_the_end(runner, an_assignment(image), tmp_path, {})

    assert done.result.exit_code in {126, 127}
    assert "foreign" in done.result.log_tail


def test_an_image_whose_user_does_not_exist_is_the_models_failure(
    runner: DockerRunner, make_image: MakeImage, tmp_path: Path
) -> None:
    done = run_to_the_end(runner, an_assignment(make_image("/bin/true", user="nobody-here")), tmp_path, {})

    assert done.result.exit_code == 127
    assert "nobody-here" in done.result.log_tail


@pytest.mark.parametrize("mode", ["shared", "archive"])
def test_an_image_with_a_file_where_a_folder_must_be_is_the_models_failure(
    mode: str, make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str, tmp_path: Path
) -> None:
    runner = make_docker_runner(scratch, mode)
    assignment = an_assignment(tiny_image, input_mountpoint="/bin/busybox")

    try:
        said = run_to_the_end(runner, assignment, tmp_path, {}).result.log_tail
    except ModelRefused as refused:
        said = str(refused)

    assert "not a directory" in said


def test_a_container_that_is_removed_under_a_run_is_the_platforms_trouble(
    docker_engine: docker.DockerClient, runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {"run.sh": "sleep 60"}), None)
    thread, results = begin(run, Event())
    eventually(lambda: is_running(docker_engine, run))

    docker_engine.api.remove_container(run.container, force=True)
    thread.join(45)
    run.discard()

    assert isinstance(results[0], RunnerError)


def test_a_run_survives_that_the_engine_was_away_for_a_while(
    docker_engine: docker.DockerClient,
    make_docker_runner: MakeDockerRunner,
    proxy: EngineProxy,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    runner = make_docker_runner(scratch, docker_host=proxy.address)
    script = "echo before; while [ ! -e /input/go ]; do sleep 0.1; done; echo after"
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {"run.sh": script}), None)
    thread, results = begin(run, Event())
    eventually(lambda: docker_engine.api.logs(run.container))

    with proxy.cut():
        with pytest.raises(RunnerError, match="did not answer"):
            runner.check()
        assert thread.is_alive()
    docker_engine.api.put_archive(run.container, "/input", tar_of_an_empty_file("go"))
    thread.join(45)
    run.discard()

    assert results == [RunResult(exit_code=0, log_tail="before\nafter\n")]


def test_a_failure_while_the_engine_was_away_is_not_held_against_the_model(
    docker_engine: docker.DockerClient,
    make_docker_runner: MakeDockerRunner,
    proxy: EngineProxy,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    runner = make_docker_runner(scratch, docker_host=proxy.address)
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {"run.sh": "sleep 60"}), None)
    thread, results = begin(run, Event())
    eventually(lambda: is_running(docker_engine, run))

    with proxy.cut():
        docker_engine.api.kill(run.container)
        eventually(lambda: not is_running(docker_engine, run))
    thread.join(45)
    run.discard()

    assert isinstance(results[0], RunnerError)
    assert "while the Docker engine was away" in str(results[0])


@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning"
)  # the SDK forgets sockets that it could not connect
def test_a_model_that_the_engine_ends_at_its_own_shutdown_is_not_blamed(
    make_docker_runner: MakeDockerRunner, scratch: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with OwnEngine(tmp_path_factory.mktemp("engine"), alone=False) as engine:
        with closing(docker.DockerClient(base_url=engine.address)) as client:
            client.api.import_image_from_data(root_tar({}), "sleeper", "1", changes=['CMD ["/bin/sleep", "60"]'])
            runner = make_docker_runner(scratch, docker_host=engine.address)
            run = runner.prepare(an_assignment("sleeper:1"), write_zip(tmp_path / "z", {}), None)
            thread, results = begin(run, Event())
            eventually(lambda: is_running(client, run))

        engine.stop()
        thread.join(90)

    assert isinstance(results[0], RunnerError)
    runner.close()
    run.discard()
    results.clear()
    gc.collect()

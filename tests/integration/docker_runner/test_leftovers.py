"""What dead consumers leave on an engine, and that nothing else is swept away."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import docker
import pytest

from contracts.errors import Unavailable
from contracts.models import BlobRef
from contracts.tasks import AttemptRef
from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker import DockerRunner
from job_consumer.sweeper import Sweeper
from tests.support.docker_engine import MakeDockerRunner, remains
from tests.support.model_runs import an_assignment, write_zip
from tests.support.waiting import eventually

NEVER = timedelta(hours=1)

CONSUMER_THAT_DIES = """
import sys
from pathlib import Path
from threading import Event
from contracts.archives import ArchiveLimits
from job_consumer.runner.docker import DockerRunner
from tests.support.model_runs import an_assignment, write_zip

scratch, installation, image, mode = sys.argv[1:]
runner = DockerRunner(scratch=Path(scratch), installation=installation, consumer="dead one", mode=mode,
                      archive_limits=ArchiveLimits(), max_output_bytes=2**20)
run = runner.prepare(an_assignment(image, task_id=70, attempt=3), write_zip(Path(scratch) / "in.zip", {"run.sh": "sleep 120"}), None)
run.execute(Event())
"""
DEAD = AttemptRef(task_id=70, attempt=3, consumer="dead one")


class KnownAttempts:
    """Says of every attempt that it is stale, but of the current ones."""

    def __init__(self, current: Sequence[AttemptRef] = (), models: frozenset[str] = frozenset()) -> None:
        self.current = list(current)
        self.models = models

    def stale_attempts(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:
        return [attempt for attempt in attempts if attempt not in self.current]

    def model_content_hashes(self) -> frozenset[str]:
        return self.models


class Away:
    """As private_api is while it restarts."""

    def stale_attempts(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:  # noqa: ARG002
        raise Unavailable("private_api does not answer (ConnectError).")

    def model_content_hashes(self) -> frozenset[str]:
        raise Unavailable("private_api does not answer (ConnectError).")


@pytest.fixture(params=["shared", "archive"])
def dead_consumer(request: pytest.FixtureRequest, installation: str, scratch: Path, tiny_image: str) -> None:
    """A consumer was killed with SIGKILL while its model ran."""
    if request.param == "shared" and os.geteuid() != 0:
        pytest.skip("the shared way takes root")
    scratch.mkdir()
    command = [sys.executable, "-c", CONSUMER_THAT_DIES, str(scratch), installation, tiny_image, request.param]
    root = Path(__file__).parents[3]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=root) as consumer,
        closing(docker.from_env()) as engine,
    ):
        eventually(lambda: running(engine, installation))
        consumer.send_signal(signal.SIGKILL)


def running(engine: docker.DockerClient, installation: str) -> list[str]:
    chosen = {"label": f"inference-server.installation={installation}", "status": "running"}
    return [found["Id"] for found in engine.api.containers(filters=chosen)]


def folders_of_attempts(scratch: Path) -> list[Path]:
    return [left for folder in scratch.glob("docker-*") for left in folder.iterdir()]


def test_a_dead_consumers_container_volumes_and_folder_are_swept(
    docker_engine: docker.DockerClient, installation: str, dead_consumer: None, runner: DockerRunner, scratch: Path
) -> None:
    assert running(docker_engine, installation)
    assert runner.leftovers() == [DEAD]

    Sweeper(runner, KnownAttempts(), NEVER).sweep()

    assert remains(docker_engine, installation) == []
    assert folders_of_attempts(scratch) == []
    assert runner.leftovers() == []


def test_what_is_current_stays_also_where_it_is_another_consumers(
    docker_engine: docker.DockerClient,
    installation: str,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    mine, other = make_docker_runner(scratch), make_docker_runner(scratch)
    zipped = write_zip(tmp_path / "z", {"run.sh": "echo alive > /output/alive"})
    staged = other.prepare(an_assignment(tiny_image, task_id=1), zipped, None)
    doomed = other.prepare(an_assignment(tiny_image, task_id=2), zipped, None)
    (current,) = [attempt for attempt in mine.leftovers() if attempt.task_id == 1]

    Sweeper(mine, KnownAttempts(current=[current]), NEVER).sweep()

    assert mine.leftovers() == [current]
    assert staged.execute(Event()).exit_code == 0
    assert staged.collect(tmp_path / "out.zip") == []
    staged.discard()
    with pytest.raises(RunnerError):
        doomed.execute(Event())
    doomed.discard()


def test_attempts_that_differ_in_one_number_or_name_are_told_apart(
    docker_engine: docker.DockerClient,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    zipped = write_zip(tmp_path / "z", {})
    runners = [make_docker_runner(scratch, consumer=name) for name in ("host", "host-1", "host=1,x/ü")]
    runs = [
        runner.prepare(an_assignment(tiny_image, task_id=task_id, attempt=attempt), zipped, None)
        for runner in runners
        for task_id, attempt in ((1, 1), (11, 1), (1, 11))
    ]
    before = runners[0].leftovers()

    runners[0].remove_leftover(AttemptRef(task_id=1, attempt=1, consumer="host"))

    after = runners[0].leftovers()
    for run in runs:
        run.discard()
    assert len(before) == len(runs)
    assert set(before) - set(after) == {AttemptRef(task_id=1, attempt=1, consumer="host")}
    assert len(after) == len(runs) - 1


def test_another_installations_runs_are_invisible(
    make_docker_runner: MakeDockerRunner, runner: DockerRunner, scratch: Path, tiny_image: str, tmp_path: Path
) -> None:
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {}), None)

    neighbour = make_docker_runner(scratch, installation="neighbour")
    Sweeper(neighbour, KnownAttempts(), NEVER).sweep()
    found = runner.leftovers()
    run.discard()

    assert neighbour.leftovers() == []
    assert len(found) == 1


def test_nothing_is_removed_while_private_api_is_away(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    content = BlobRef(sha256="c" * 64, size=1)
    model_zip = write_zip(tmp_path / "model.zip", {"w": "w"})
    run = runner.prepare(an_assignment(tiny_image, content=content), write_zip(tmp_path / "z", {}), model_zip)
    before = runner.leftovers()

    Sweeper(runner, Away(), NEVER).sweep()

    after = runner.leftovers()
    run.discard()
    assert before == after != []
    assert runner.has_model(content.sha256)


def test_content_that_no_model_has_goes_with_a_sweep_and_known_content_stays(
    runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    known, unknown = BlobRef(sha256="1" * 64, size=1), BlobRef(sha256="2" * 64, size=1)
    model_zip = write_zip(tmp_path / "model.zip", {"w": "w"})
    for content in (known, unknown):
        runner.prepare(an_assignment(tiny_image, content=content), write_zip(tmp_path / "z", {}), model_zip).discard()

    Sweeper(runner, KnownAttempts(models=frozenset({known.sha256})), NEVER).sweep()

    assert runner.has_model(known.sha256)
    assert not runner.has_model(unknown.sha256)


def test_the_sweeper_sweeps_at_its_start_and_stops_when_told(
    installation: str, dead_consumer: None, runner: DockerRunner
) -> None:
    stop = Event()
    sweeping = Thread(target=Sweeper(runner, KnownAttempts(), NEVER).run, args=(stop,))
    sweeping.start()

    eventually(lambda: runner.leftovers() == [])
    stop.set()
    sweeping.join(60)

    assert not sweeping.is_alive()


def test_a_sweep_survives_an_engine_that_is_away(
    make_docker_runner: MakeDockerRunner, scratch: Path, tmp_path: Path
) -> None:
    runner = make_docker_runner(scratch, docker_host=f"unix://{tmp_path}/nobody-listens.sock")

    Sweeper(runner, KnownAttempts(), NEVER).sweep()

    assert not runner.remove_leftover(DEAD), "told only where all is gone"


@pytest.mark.parametrize("mode", ["shared", "archive"])
@pytest.mark.parametrize(
    "breaking",
    [
        {"output_mountpoint": "/input"},
        {"input_mountpoint": "/bin/busybox"},
        {"content": BlobRef(sha256="e" * 64, size=1)},
    ],
    ids=["two mounts at one place", "a file in the way", "content that nobody brings"],
)
def test_a_preparation_that_fails_leaves_nothing(
    mode: str,
    breaking: dict[str, Any],
    docker_engine: docker.DockerClient,
    installation: str,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    runner = make_docker_runner(scratch, mode)
    zipped = write_zip(tmp_path / "z", {})

    with suppress(ModelRefused, RunnerError):
        runner.prepare(an_assignment(tiny_image, **breaking), zipped, None).discard()

    assert remains(docker_engine, installation) == []
    assert folders_of_attempts(scratch) == []

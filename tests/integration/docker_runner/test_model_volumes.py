"""Model content on the engine: filled once, whole or not at all, kept, and forgotten."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import docker
import pytest

from contracts.archives import ArchiveLimits
from contracts.models import BlobRef
from contracts.tasks import AttemptRef
from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker import DockerRunner
from job_consumer.runner.docker.engine import Engine
from job_consumer.runner.docker.labels import INSTALLATION, KIND, Kind, attempt_labels, label_filter, model_name
from job_consumer.runner.docker.model_volumes import ModelVolumes
from tests.support.docker_engine import MakeDockerRunner
from tests.support.model_runs import an_assignment, write_zip
from tests.support.waiting import eventually

SHA256 = "ab" * 32
CONTENT = BlobRef(sha256=SHA256, size=100)
PRINT_WEIGHTS = "cat /model/sub/weights; ls /model"


@pytest.fixture
def model_zip(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "model.zip", {"sub/weights": "0.5\n", "empty/": ""})


@pytest.fixture
def input_zip(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "in.zip", {"run.sh": PRINT_WEIGHTS})


def log_of_a_run(runner: DockerRunner, image: str, input_zip: Path, model_zip: Path | None) -> str:
    run = runner.prepare(an_assignment(image, content=CONTENT), input_zip, model_zip)
    try:
        return run.execute(Event()).log_tail
    finally:
        run.discard()


def volumes_of(engine: docker.DockerClient, installation: str, kind: Kind) -> list[str]:
    chosen = label_filter({INSTALLATION: installation, KIND: kind})
    return [found["Name"] for found in engine.api.volumes(filters=chosen)["Volumes"] or []]


def test_content_is_brought_once_and_serves_every_later_task(
    runner: DockerRunner, tiny_image: str, input_zip: Path, model_zip: Path
) -> None:
    assert not runner.has_model(SHA256)

    first = log_of_a_run(runner, tiny_image, input_zip, model_zip)
    assert runner.has_model(SHA256)
    second = log_of_a_run(runner, tiny_image, input_zip, None)

    assert first == second == "0.5\nempty\nsub\n"


def test_content_serves_the_other_consumers_of_the_engine_too(
    make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str, input_zip: Path, model_zip: Path
) -> None:
    log_of_a_run(make_docker_runner(scratch), tiny_image, input_zip, model_zip)

    other = make_docker_runner(scratch, "archive")

    assert other.has_model(SHA256)
    assert log_of_a_run(other, tiny_image, input_zip, None).startswith("0.5")


def test_content_of_another_installation_is_not_ours(
    make_docker_runner: MakeDockerRunner,
    runner: DockerRunner,
    scratch: Path,
    tiny_image: str,
    input_zip: Path,
    model_zip: Path,
) -> None:
    log_of_a_run(runner, tiny_image, input_zip, model_zip)

    assert not make_docker_runner(scratch, installation="another").has_model(SHA256)


def test_consumers_that_need_the_same_content_at_once_fill_it_once(
    docker_engine: docker.DockerClient,
    installation: str,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    input_zip: Path,
    tmp_path: Path,
) -> None:
    model_zip = write_zip(tmp_path / "large.zip", {"sub/weights": "0.5\n", "bulk": bytes(8 * 2**20)})
    runners = [make_docker_runner(scratch) for _ in range(4)]
    for runner in runners:
        runner.check()
    together = threading.Barrier(len(runners))

    def run(runner: DockerRunner) -> str:
        together.wait()
        return log_of_a_run(runner, tiny_image, input_zip, model_zip)

    with watched_volumes(docker_engine, installation) as made, ThreadPoolExecutor(len(runners)) as pool:
        logs = list(pool.map(run, runners))

    assert logs == ["0.5\nbulk\nsub\n"] * len(runners)
    assert len(set(made)) == 1


class watched_volumes:  # noqa: N801 - reads as a verb in a with statement
    """The model volumes that were created meanwhile, by the engine's own account."""

    def __init__(self, engine: docker.DockerClient, installation: str) -> None:
        self._engine = engine
        self._installation = installation
        self._made: list[str] = []
        self._events = engine.api.events(decode=True, filters={"type": "volume", "event": "create"})

    def __enter__(self) -> list[str]:
        self._stem = model_name(self._installation, SHA256)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self._made

    def __exit__(self, *_: object) -> None:
        self._engine.api.create_volume(f"{self._stem}-end", labels={INSTALLATION: self._installation, KIND: "end"})
        self._thread.join(60)
        self._events.close()
        self._engine.api.remove_volume(f"{self._stem}-end")

    def _listen(self) -> None:
        for event in self._events:
            name = event["Actor"]["ID"]
            if name == f"{self._stem}-end":
                return
            if name.startswith(self._stem) and not name.endswith("-ready"):
                self._made.append(name)


def half_filled(engine: docker.DockerClient, installation: str, image: str, consumer: str) -> tuple[str, AttemptRef]:
    """What a consumer that died while it filled a model volume left: the container, its volume, no mark."""
    attempt = AttemptRef(task_id=900, attempt=1, consumer=consumer)
    volumes = ModelVolumes(Engine(), installation, consumer, ArchiveLimits())
    filler = volumes._become_filler(SHA256, image, attempt)
    assert filler is not None
    volumes._engine.close()
    return filler.volume, attempt


def test_a_half_filled_volume_does_not_count(
    docker_engine: docker.DockerClient, installation: str, runner: DockerRunner, tiny_image: str
) -> None:
    _, attempt = half_filled(docker_engine, installation, tiny_image, "dead")

    assert not runner.has_model(SHA256)
    runner.remove_leftover(attempt)


def test_a_half_filled_volume_of_a_dead_consumer_is_filled_anew_once_it_was_swept(
    docker_engine: docker.DockerClient,
    installation: str,
    runner: DockerRunner,
    tiny_image: str,
    input_zip: Path,
    model_zip: Path,
) -> None:
    abandoned, attempt = half_filled(docker_engine, installation, tiny_image, "dead")
    logs: list[str] = []
    waiting = threading.Thread(target=lambda: logs.append(log_of_a_run(runner, tiny_image, input_zip, model_zip)))
    waiting.start()

    assert attempt in runner.leftovers()
    runner.remove_leftover(attempt)
    waiting.join(60)
    runner.forget_models(frozenset({SHA256}))

    assert logs == ["0.5\nempty\nsub\n"]
    kept = volumes_of(docker_engine, installation, Kind.MODEL)
    assert len(kept) == 1
    assert abandoned not in kept


def test_a_consumer_that_died_while_filling_and_came_back_goes_on_at_once(
    docker_engine: docker.DockerClient,
    installation: str,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    input_zip: Path,
    model_zip: Path,
) -> None:
    half_filled(docker_engine, installation, tiny_image, "phoenix")

    runner = make_docker_runner(scratch, consumer="phoenix")

    assert log_of_a_run(runner, tiny_image, input_zip, model_zip).startswith("0.5")


def test_a_mark_whose_volume_an_administrator_removed_is_repaired(
    docker_engine: docker.DockerClient,
    installation: str,
    runner: DockerRunner,
    tiny_image: str,
    input_zip: Path,
    model_zip: Path,
) -> None:
    log_of_a_run(runner, tiny_image, input_zip, model_zip)
    (content,) = volumes_of(docker_engine, installation, Kind.MODEL)
    docker_engine.api.remove_volume(content)

    assert not runner.has_model(SHA256)
    assert log_of_a_run(runner, tiny_image, input_zip, model_zip).startswith("0.5")


def test_a_filler_that_was_stopped_for_long_cannot_declare_its_volume_beside_another(
    docker_engine: docker.DockerClient,
    installation: str,
    runner: DockerRunner,
    tiny_image: str,
    input_zip: Path,
    model_zip: Path,
) -> None:
    stopped = ModelVolumes(Engine(), installation, "stopped", ArchiveLimits())
    abandoned, attempt = half_filled(docker_engine, installation, tiny_image, "stopped")
    runner.remove_leftover(attempt)
    log_of_a_run(runner, tiny_image, input_zip, model_zip)

    declared = stopped._mark(SHA256, abandoned)
    stopped._engine.close()

    assert not declared
    assert log_of_a_run(runner, tiny_image, input_zip, None).startswith("0.5")


def test_a_hostile_model_zip_is_refused_and_nothing_of_it_stays(
    docker_engine: docker.DockerClient,
    installation: str,
    runner: DockerRunner,
    tiny_image: str,
    input_zip: Path,
    tmp_path: Path,
) -> None:
    hostile = write_zip(tmp_path / "hostile.zip", {"../x": "x"})

    with pytest.raises(ModelRefused, match="leaves its folder"):
        log_of_a_run(runner, tiny_image, input_zip, hostile)

    assert not runner.has_model(SHA256)
    assert volumes_of(docker_engine, installation, Kind.MODEL) == []


def test_content_of_models_that_are_no_more_is_forgotten(
    docker_engine: docker.DockerClient,
    installation: str,
    runner: DockerRunner,
    tiny_image: str,
    input_zip: Path,
    model_zip: Path,
) -> None:
    log_of_a_run(runner, tiny_image, input_zip, model_zip)

    runner.forget_models(frozenset({SHA256}))
    assert runner.has_model(SHA256)
    runner.forget_models(frozenset({"cd" * 32}))

    assert not runner.has_model(SHA256)
    assert volumes_of(docker_engine, installation, Kind.MODEL) == []
    assert volumes_of(docker_engine, installation, Kind.MODEL_READY) == []


def test_content_that_a_staged_task_uses_is_not_forgotten(
    runner: DockerRunner, tiny_image: str, input_zip: Path, model_zip: Path
) -> None:
    run = runner.prepare(an_assignment(tiny_image, content=CONTENT), input_zip, model_zip)

    runner.forget_models(frozenset())
    log = run.execute(Event()).log_tail
    run.discard()

    assert log == "0.5\nempty\nsub\n"


def test_a_task_never_runs_on_content_that_vanished_after_the_look(
    runner: DockerRunner, tiny_image: str, input_zip: Path, model_zip: Path
) -> None:
    log_of_a_run(runner, tiny_image, input_zip, model_zip)
    assert runner.has_model(SHA256)
    runner.forget_models(frozenset())

    with pytest.raises(RunnerError, match="model content"):
        log_of_a_run(runner, tiny_image, input_zip, None)


def test_a_filler_is_found_as_a_leftover_of_its_attempt(
    docker_engine: docker.DockerClient, installation: str, runner: DockerRunner, tiny_image: str
) -> None:
    labels: dict[str, Any] = attempt_labels(
        installation, Kind.FILLER, AttemptRef(task_id=5, attempt=6, consumer="gone")
    )
    docker_engine.api.create_container(tiny_image, labels=labels)

    found = runner.leftovers()
    for attempt in found:
        runner.remove_leftover(attempt)

    assert found == [AttemptRef(task_id=5, attempt=6, consumer="gone")]
    eventually(lambda: runner.leftovers() == [])

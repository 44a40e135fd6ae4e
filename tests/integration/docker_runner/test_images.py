"""Images that are missing, wrong, or not to be had."""

import http.server
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from job_consumer.runner.base import ModelRefused, RunnerError
from job_consumer.runner.docker import DockerRunner
from tests.support.docker_engine import MakeDockerRunner, MakeImage
from tests.support.model_runs import an_assignment, write_zip


class _EmptyRegistry(http.server.BaseHTTPRequestHandler):
    """Speaks the registry's protocol and has no image."""

    def do_GET(self) -> None:
        has_version = self.path == "/v2/"
        body = b"{}" if has_version else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        self.send_response(200 if has_version else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library looks for this name

    def log_message(self, *_: object) -> None:
        """The test's output is no place for a registry's log."""


@pytest.fixture
def empty_registry() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EmptyRegistry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_image_that_the_registry_does_not_have_is_refused_with_its_words(
    runner: DockerRunner, empty_registry: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=r"cannot be pulled: .*manifest.* unknown"):
        runner.prepare(an_assignment(f"{empty_registry}/lost/model:7"), write_zip(tmp_path / "z", {}), None)


def test_a_registry_that_cannot_be_reached_is_named_in_the_reason(runner: DockerRunner, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"127\.0\.0\.1:9"):
        runner.prepare(an_assignment("127.0.0.1:9/no/registry:1"), write_zip(tmp_path / "z", {}), None)


def test_nothing_is_pulled_where_that_is_switched_off(
    make_docker_runner: MakeDockerRunner, scratch: Path, empty_registry: str, tmp_path: Path
) -> None:
    runner = make_docker_runner(scratch, pull="never")

    with pytest.raises(ModelRefused, match="pulling is switched off"):
        runner.prepare(an_assignment(f"{empty_registry}/lost/model:7"), write_zip(tmp_path / "z", {}), None)


@pytest.mark.parametrize("tag", ["UPPER/case:1", "space in/name", "a" * 300])
def test_a_name_that_is_none_is_refused(tag: str, runner: DockerRunner, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused):
        runner.prepare(an_assignment(tag), write_zip(tmp_path / "z", {}), None)


def test_an_image_without_a_command_is_refused(runner: DockerRunner, make_image: MakeImage, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"[Nn]o command"):
        runner.prepare(an_assignment(make_image()), write_zip(tmp_path / "z", {}), None)


def test_two_folders_at_one_place_are_refused(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    assignment = an_assignment(tiny_image, output_mountpoint="/input")

    with pytest.raises(ModelRefused, match="cannot be run as registered"):
        runner.prepare(assignment, write_zip(tmp_path / "z", {}), None)


def test_an_engine_that_is_away_is_the_platforms_trouble(
    make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str, tmp_path: Path
) -> None:
    runner = make_docker_runner(scratch, docker_host=f"unix://{tmp_path}/nobody-listens.sock")

    with pytest.raises(RunnerError, match="did not answer"):
        runner.check()
    with pytest.raises(RunnerError, match="did not answer"):
        runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {}), None)
    with pytest.raises(RunnerError, match="did not answer"):
        runner.leftovers()
    runner.forget_models(frozenset())


def test_a_pull_has_a_deadline(
    make_docker_runner: MakeDockerRunner, scratch: Path, empty_registry: str, tmp_path: Path
) -> None:
    runner = make_docker_runner(scratch, pull_within=timedelta(0))

    with pytest.raises((ModelRefused, RunnerError)):
        runner.prepare(an_assignment(f"{empty_registry}/lost/model:7"), write_zip(tmp_path / "z", {}), None)

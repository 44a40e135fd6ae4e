"""Finding out how files can reach containers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest

from job_consumer.runner.base import RunnerError
from tests.support.docker_engine import MakeDockerRunner
from tests.support.model_runs import an_assignment, write_zip
from tests.support.requirements import missing

RUN_WHERE_THE_HOST_SEES_ANOTHER_SCRATCH = """
import sys
from pathlib import Path
from contracts.archives import ArchiveLimits
from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker import DockerRunner
from tests.support.model_runs import an_assignment, run_to_the_end

scratch, installation, image, mode = sys.argv[1:]
runner = DockerRunner(scratch=Path(scratch), installation=installation, consumer="apart", mode=mode,
                      archive_limits=ArchiveLimits(), max_output_bytes=2**20)
try:
    done = run_to_the_end(runner, an_assignment(image), Path(scratch), {"run.sh": "cp /input/run.sh /output/copy"})
    print(sorted(done.output))
except RunnerError as error:
    print(error)
"""


def in_a_mount_namespace_of_its_own(scratch: Path, *arguments: str) -> str:
    """What the program prints when the scratch folder is a tmpfs that the engine's host does not see."""
    if os.geteuid() != 0:
        missing("a mount namespace takes root")
    scratch.mkdir()
    mount_and_run = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$1" "${@:4}"'
    command = ["unshare", "-m", "bash", "-c", mount_and_run, "bash", str(scratch), sys.executable]
    done = subprocess.run(
        [*command, RUN_WHERE_THE_HOST_SEES_ANOTHER_SCRATCH, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return done.stdout.splitlines()[-1]


def volume_options(engine: docker.DockerClient, container: str) -> list[dict[str, Any] | None]:
    mounts = engine.api.inspect_container(container)["Mounts"]
    return [engine.api.inspect_volume(mount["Name"])["Options"] for mount in mounts if mount["Type"] == "volume"]


def test_a_scratch_folder_that_the_host_sees_is_used_in_its_place(
    docker_engine: docker.DockerClient,
    make_docker_runner: MakeDockerRunner,
    scratch: Path,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    if os.geteuid() != 0:
        missing("the shared way takes root")
    runner = make_docker_runner(scratch)

    runner.check()
    run = runner.prepare(an_assignment(tiny_image), write_zip(tmp_path / "z", {}), None)
    options = volume_options(docker_engine, run.container)
    run.discard()

    assert all(one is not None and one["device"].startswith(str(scratch)) for one in options)


def test_where_the_host_sees_another_folder_files_go_through_the_archive_api(
    installation: str, scratch: Path, tiny_image: str
) -> None:
    assert in_a_mount_namespace_of_its_own(scratch, installation, tiny_image, "auto") == "['copy']"


def test_a_shared_folder_that_is_demanded_and_not_shared_is_refused(
    installation: str, scratch: Path, tiny_image: str
) -> None:
    said = in_a_mount_namespace_of_its_own(scratch, installation, tiny_image, "shared")

    assert "cannot be shared with the engine's host" in said


def test_the_check_leaves_nothing(make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str) -> None:
    make_docker_runner(scratch).check()

    assert [left for folder in scratch.iterdir() for left in folder.iterdir()] == []


def test_a_runner_that_was_closed_connects_again(
    make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str
) -> None:
    runner = make_docker_runner(scratch)
    runner.check()

    runner.close()

    runner.check()


def test_a_scratch_folder_without_room_stops_the_consumer_from_taking_tasks(
    make_docker_runner: MakeDockerRunner, scratch: Path, tiny_image: str
) -> None:
    if os.geteuid() != 0:
        missing("a small file system takes root")
    scratch.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(scratch)], check=True)
    try:
        with pytest.raises(RunnerError, match="make room"):
            make_docker_runner(scratch).check()
    finally:
        subprocess.run(["umount", str(scratch)], check=True)

"""The consumer in its container: as root with the few capabilities of docker-compose.yaml, as root without, and as nobody."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from tests.support.compose import COMPOSE_FILE, load
from tests.support.docker_engine import RUN_INPUT_SCRIPT, MakeImage, engine_socket
from tests.support.requirements import missing

RUN_SECONDS = 120
SOCKET_INSIDE = "/var/run/docker.sock"
CAPABILITIES: list[str] = load(COMPOSE_FILE)["services"]["job-consumer"]["cap_add"]

ONE_RUN = r"""
import json, sys, zipfile
from pathlib import Path
from threading import Event

from contracts.archives import ArchiveLimits
from contracts.models import BlobRef, Limits, ModelForRun
from contracts.tasks import Assignment
from job_consumer.runner.docker import DockerRunner
from service_kit import logging

given = json.loads(sys.argv[1])
logging.configure("job_consumer", "INFO", "json")
scratch = Path(given["scratch"])
blob = BlobRef(sha256="0" * 64, size=1)
model = ModelForRun(
    uid="m", human_readable_id="m", container_tag=given["image"], use_gpu=False, input_mountpoint="/input",
    output_mountpoint="/output", model_mountpoint="/model", content=blob,
    limits=Limits(timeout_seconds=60, memory_bytes=2**26, cpus=1, pids=64, shm_bytes=2**20),
)
with zipfile.ZipFile("/tmp/in.zip", "w") as archive:
    archive.writestr("run.sh", given["script"])
with zipfile.ZipFile("/tmp/model.zip", "w") as archive:
    archive.writestr("weights", "weights")
runner = DockerRunner(
    scratch=scratch, installation=given["installation"], consumer="contained",
    archive_limits=ArchiveLimits(), max_output_bytes=2**20,
)
runner.check()
assignment = Assignment(task_id=1, uid="u" * 43, attempt=1, input=blob, model=model)
run = runner.prepare(assignment, Path("/tmp/in.zip"), Path("/tmp/model.zip"))
result = run.execute(Event())
run.collect(Path("/tmp/out.zip"))
run.discard()
runner.forget_models(frozenset())
runner.close()
with zipfile.ZipFile("/tmp/out.zip") as archive:
    output = {name: archive.read(name).decode() for name in archive.namelist() if not name.endswith("/")}
left = [path.name for folder in scratch.iterdir() for path in folder.iterdir()]
print(json.dumps({"exit_code": result.exit_code, "log": result.log_tail, "output": output, "left": left}))
"""

UNTIDY = """
umask 077
cd /output
echo mine > mine
mkdir closed; echo closed > closed/file; chmod 0 closed/file; chmod 0 closed
mkdir sticky; echo sticky > sticky/file; chmod 1777 sticky
mkdir group; chmod 2700 group; echo group > group/file
ln -s /etc/passwd link
mkfifo pipe
mkdir /input/left; touch /input/left/file; chmod 0 /input/left
deep=deep
for _ in $(seq 300); do deep=$deep/deep; done
mkdir -p $deep
echo deep > $deep/file
"""
EXPECTED = {
    "mine": "mine\n",
    "closed/file": "closed\n",
    "sticky/file": "sticky\n",
    "group/file": "group\n",
    "deep" + "/deep" * 300 + "/file": "deep\n",
}


@dataclass(frozen=True)
class Done:
    """What one run in the container came to."""

    output: dict[str, str]
    left: list[str]
    log: str


Consume = Callable[..., Done]


@pytest.fixture
def consume(
    service_image: Callable[[str], str],
    make_image: MakeImage,
    installation: str,
    docker_engine: docker.DockerClient,
    tmp_path: Path,
) -> Consume:
    """Runs one untidy model of another user, from a consumer in a container such as the deployment's."""
    socket = engine_socket()
    if socket is None or os.geteuid() != 0:
        missing("the engine is on another machine, or this is not root")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    image = make_image(*RUN_INPUT_SCRIPT, user="12345:12345")

    def once(user: str, capabilities: Sequence[str]) -> Done:
        os.chown(scratch, int(user.partition(":")[0]), -1)
        given = {"scratch": str(scratch), "image": image, "script": UNTIDY, "installation": installation}
        hardening = [
            "--read-only",
            "--tmpfs=/tmp",
            "--security-opt=no-new-privileges",
            "--network=none",
            "--cap-drop=ALL",
        ]
        mounts = [f"--volume={socket}:{SOCKET_INSIDE}", f"--volume={scratch}:{scratch}"]
        added = [f"--cap-add={name}" for name in capabilities]
        container = [service_image("job_consumer"), "python", "-c", ONE_RUN, json.dumps(given)]
        done = subprocess.run(
            ["docker", "run", "--rm", f"--user={user}", *hardening, *added, *mounts, *container],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["exit_code"] == 0, said["log"]
        return Done(said["output"], said["left"], done.stderr)

    return once


def test_root_with_the_capabilities_of_the_compose_file_shares_the_folder_and_leaves_nothing(consume: Consume) -> None:
    done = consume("0:0", CAPABILITIES)

    assert "volumes_through_shared_folder" in done.log
    assert (done.output, done.left) == (EXPECTED, [])


@pytest.mark.parametrize("lacking", ["DAC_OVERRIDE", "FOWNER"])
def test_root_that_could_not_clear_up_takes_the_archive_api_and_says_why(consume: Consume, lacking: str) -> None:
    done = consume("0:0", [name for name in CAPABILITIES if name != lacking])

    assert "volumes_through_archive_api" in done.log
    assert f"lacks the capabilities {lacking}," in done.log
    assert (done.output, done.left) == (EXPECTED, [])


def test_a_user_of_the_sockets_group_takes_the_archive_api_and_says_why(consume: Consume) -> None:
    socket = engine_socket()
    assert socket is not None

    done = consume(f"10001:{socket.stat().st_gid}", [])

    assert "volumes_through_archive_api" in done.log
    assert "lacks the capabilities DAC_OVERRIDE and FOWNER," in done.log
    assert (done.output, done.left) == (EXPECTED, [])

"""What a model container can reach, tried from inside."""

from pathlib import Path
from threading import Event

import docker
import pytest

from contracts.models import BlobRef
from job_consumer.runner.docker import DockerRunner
from tests.support.docker_engine import MakeImage
from tests.support.model_runs import an_assignment, limits, run_to_the_end, write_zip

WEIGHTS = BlobRef(sha256="5" * 64, size=7)


def test_there_is_no_network_but_loopback(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    script = "exec 2>&1; ls /sys/class/net; nc -w 2 172.17.0.1 53; echo nc $?; wget -T 2 -q -O - http://172.17.0.1/; echo wget $?"

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": script})

    assert done.result.log_tail.split()[0] == "lo"
    assert "eth0" not in done.result.log_tail
    assert "nc 1" in done.result.log_tail
    assert "wget 1" in done.result.log_tail
    assert "Network is unreachable" in done.result.log_tail


def test_a_model_that_may_use_the_network_has_one(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    assignment = an_assignment(tiny_image, limits=limits(network="bridge"))

    done = run_to_the_end(runner, assignment, tmp_path, {"run.sh": "ls /sys/class/net"})

    assert "eth0" in done.result.log_tail


def test_the_model_folder_cannot_be_written(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    script = "exec 2>&1; cat /model/weights; echo x > /model/weights; touch /model/new; rm /model/weights; cat /model/weights"
    run = runner.prepare(
        an_assignment(tiny_image, content=WEIGHTS),
        write_zip(tmp_path / "in.zip", {"run.sh": script}),
        write_zip(tmp_path / "model.zip", {"weights": "kept"}),
    )

    log = run.execute(Event()).log_tail
    run.discard()

    assert log.startswith("kept")
    assert log.endswith("kept")
    assert log.count("Read-only file system") == 3


def test_a_model_without_content_finds_an_empty_folder(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    script = "exec 2>&1; ls -a /model; touch /model/new; echo $?"

    done = run_to_the_end(runner, an_assignment(tiny_image), tmp_path, {"run.sh": script})

    assert done.result.log_tail.split() == [".", "..", "touch:", "/model/new:", "Read-only", "file", "system", "1"]


def test_content_that_an_image_brings_itself_shows(runner: DockerRunner, make_image: MakeImage, tmp_path: Path) -> None:
    weights = {"model/baked": b"in the image", "model/large": bytes(30 * 2**20)}
    image = make_image("cat", "/model/baked", extra=weights)

    done = run_to_the_end(runner, an_assignment(image), tmp_path, {})

    assert done.result.log_tail == "in the image"


def test_another_tasks_files_are_out_of_sight(
    docker_engine: docker.DockerClient, runner: DockerRunner, tiny_image: str, tmp_path: Path
) -> None:
    secret = write_zip(tmp_path / "secret.zip", {"run.sh": "true", "hush-hush": "x"})
    other = runner.prepare(an_assignment(tiny_image), secret, None)

    done = run_to_the_end(
        runner,
        an_assignment(tiny_image),
        tmp_path,
        {"run.sh": "find / -name 'hush*'; cat /proc/self/mountinfo; ls /input"},
    )
    volumes = {
        mount["Name"] for mount in docker_engine.api.inspect_container(other.container)["Mounts"] if "Name" in mount
    }
    other.discard()

    assert volumes
    assert "hush" not in done.result.log_tail
    assert not [name for name in volumes if name in done.result.log_tail]
    assert done.result.log_tail.endswith("run.sh\n")


def test_processes_and_shared_memory_are_its_own(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    marker = Path("/dev/shm") / f"inference-server-test-{tmp_path.name}"
    marker.touch()

    done = run_to_the_end(
        runner,
        an_assignment(tiny_image),
        tmp_path,
        {"run.sh": "ps -o pid | wc -l; ls -a /dev/shm; df -k /dev/shm | tail -n 1"},
    )
    marker.unlink()

    processes, *shared = done.result.log_tail.splitlines()
    assert int(processes) < 8
    assert shared[:2] == [".", ".."]
    assert shared[-1].split()[1] == "1024"


def test_it_holds_no_capability_and_cannot_gain_any(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    done = run_to_the_end(
        runner,
        an_assignment(tiny_image),
        tmp_path,
        {
            "run.sh": "grep -E 'Cap(Eff|Bnd|Prm)|NoNewPrivs|Seccomp:' /proc/self/status; mount -t tmpfs none /tmp; chown 1 /input"
        },
    )

    status = dict(line.split(":\t") for line in done.result.log_tail.splitlines() if ":\t" in line)
    assert {status["CapEff"], status["CapBnd"], status["CapPrm"]} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert "permission denied" in done.result.log_tail
    assert "chown: /input: Operation not permitted" in done.result.log_tail


def test_more_processes_than_allowed_are_refused(runner: DockerRunner, tiny_image: str, tmp_path: Path) -> None:
    script = "for i in $(seq 40); do sleep 5 & done; echo never"

    done = run_to_the_end(runner, an_assignment(tiny_image, limits=limits(pids=16)), tmp_path, {"run.sh": script})

    assert "can't fork" in done.result.log_tail
    assert done.result.exit_code != 0


@pytest.mark.parametrize("name", ["INPUT_DIR=/a/b", "OUTPUT_DIR=/c", "MODEL_DIR=/d"])
def test_the_folders_are_where_the_model_wants_them_and_said_in_variables(
    name: str, runner: DockerRunner, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image("/bin/sh", "/a/b/run.sh")
    assignment = an_assignment(image, input_mountpoint="/a/b", output_mountpoint="/c", model_mountpoint="/d")

    done = run_to_the_end(runner, assignment, tmp_path, {"run.sh": "env > /c/env; ls -d /d"})

    assert done.result.exit_code == 0
    assert name in done.output["env"].decode().splitlines()

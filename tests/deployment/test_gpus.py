import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.compose import ROOT
from tests.support.requirements import missing

FIRST, SECOND = "GPU-8c3b2a10-5f6e-4d7c-8b9a-0123456789ab", "GPU-1f292bf8-f63f-570f-a866-efaab3ceb50a"
TWO_CARDS = f"0, {FIRST}, NVIDIA H100 80GB HBM3\n1, {SECOND}, NVIDIA A100-SXM4-40GB\n"


class Host:
    """A folder with docker-compose.yaml, and an nvidia-smi that prints what a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bin = folder / "bin"
        self._bin.mkdir()
        shutil.copy(ROOT / "docker-compose.yaml", folder)

    def prints(self, text: str, status: int = 0) -> None:
        (self._bin / "answer").write_text(text)
        script = self._bin / "nvidia-smi"
        script.write_text(
            "#!/bin/sh\n"
            '[ "$*" = "--query-gpu=index,uuid,name --format=csv,noheader" ] || { echo "bad usage: $*"; exit 2; }\n'
            f'cat "{self._bin}/answer"\nexit {status}\n'
        )
        script.chmod(0o755)

    def write_file(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "deployment.gpus"],
            cwd=self.folder,
            env={"PATH": f"{self._bin}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def compose_config(self) -> dict[str, object]:
        """What compose makes of both files."""
        asked = subprocess.run(
            ["docker", "compose", "config"],
            cwd=self.folder,
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                "COMPOSE_FILE": "docker-compose.yaml:docker-compose.gpus.yaml",
                "GPU_INDEX": "3",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if "docker: 'compose' is not" in asked.stderr or "unknown command" in asked.stderr:
            missing("docker compose is not installed")
        assert (asked.returncode, asked.stderr) == (0, "")
        services: dict[str, object] = yaml.safe_load(asked.stdout)["services"]
        return services


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_each_card_gets_a_consumer_and_the_line_for_env_is_shown(host: Host) -> None:
    host.prints(TWO_CARDS)

    done = host.write_file()
    services = host.compose_config()

    assert (done.returncode, done.stderr) == (0, "")
    assert "  COMPOSE_FILE=docker-compose.yaml:docker-compose.gpus.yaml\n" in done.stdout
    cards = {name: service["environment"] for name, service in services.items() if "gpu" in name}  # type: ignore[index]
    assert {name: given["GPU_UUID"] for name, given in cards.items()} == {
        "job-consumer-gpu-0": FIRST,
        "job-consumer-gpu-1": SECOND,
    }
    assert {given["GPU_INDEX"] for given in cards.values()} == {""}, "a card has one name, whatever .env says"
    assert {"PRIVATE_API_URL", "SCRATCH_DIR", "RABBITMQ_URL_FILE"} <= cards["job-consumer-gpu-0"].keys()


def test_a_list_of_files_that_is_there_already_is_kept(host: Host) -> None:
    host.prints(TWO_CARDS)

    with_more = host.write_file(COMPOSE_FILE="docker-compose.yaml:site.yaml").stdout
    read_already = host.write_file(COMPOSE_FILE="docker-compose.yaml:docker-compose.gpus.yaml").stdout

    assert "COMPOSE_FILE=docker-compose.yaml:site.yaml:docker-compose.gpus.yaml\n" in with_more
    assert "COMPOSE_FILE" not in read_already


@pytest.mark.parametrize(
    ("printed", "status", "said"),
    [
        ("", 0, "lists no card"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9, "status 9: NVIDIA-SMI"),
        (f"0, {FIRST}\n", 0, "no card"),
        ('0, GPU-0" }\n  evil: {, x\n', 0, "no card"),
    ],
)
def test_nothing_is_written_where_nvidia_smi_names_no_card(host: Host, printed: str, status: int, said: str) -> None:
    host.prints(printed, status)

    done = host.write_file()

    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (host.folder / "docker-compose.gpus.yaml").exists()


def test_a_host_without_the_driver_is_told_to_install_it(host: Host) -> None:
    done = host.write_file(PATH="/nowhere")

    assert done.returncode == 1
    assert "install NVIDIA's driver" in done.stderr

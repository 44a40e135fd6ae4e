"""The platform on a swarm of three hosts, made by following documentation/how_to/run_a_swarm.md to the letter."""

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from contracts.tasks import short_uid
from deployment.image_making import MakingFailed, make_offline
from deployment.image_names import EXTERNALS, example_tags, service_tag
from inference_client import InferenceClient
from tests.support.compose import ROOT
from tests.support.lan import Host, lan
from tests.support.requirements import missing
from tests.support.stack import copy_of_the_repository
from tests.support.waiting import eventually

PAGE = ROOT / "documentation" / "how_to" / "run_a_swarm.md"
HOSTS = 3
LEASE_SECONDS = 6
SETTINGS = {
    "ALLOW_PUBLIC_POST_MODEL": "true",
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "DRAIN_SECONDS": "5",
    "TRANSFER_DRAIN_SECONDS": "120",
    "RATE_LIMIT_AVERAGE": "1000",
    "RATE_LIMIT_BURST": "1000",
    **{external.variable: external.drop_in for external in EXTERNALS},
}

_BLOCK = re.compile(r"^```sh (?P<where>\S+)\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)
_DEPLOY = "--compose-file docker-stack.yaml"
_DEPLOY_HERE = f"{_DEPLOY} --compose-file docker-stack.plain-overlay.yaml"
"""Encrypted networks between the hosts need ESP of the kernel, which test machines lack."""


@dataclass(frozen=True)
class Block:
    """Commands of the page, and whether they are typed in on the ``manager`` or on the ``new-host``."""

    where: str
    commands: str


class Swarm:
    """The hosts, the first of which is the manager, and a copy of the repository on it."""

    def __init__(self, hosts: Sequence[Host], clone: Path) -> None:
        self.hosts = hosts
        self.manager = hosts[0]
        self.clone = clone
        self.url = f"https://{self.manager.address}"
        self.page = [
            Block(match["where"], match["commands"]) for match in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))
        ]
        self.followed: set[Block] = set()

    @property
    def ca(self) -> Path:
        """The authority of its certificate."""
        return self.clone / "traefik" / "certs" / "ca.crt"

    def client(self) -> InferenceClient:
        """A client outside of the swarm that comes through Traefik and verifies the certificate."""
        return InferenceClient(self.url, ca=self.ca)

    def follow(self, words: str, *, new_host: Host | None = None, **environment: str) -> str:
        """Type in the page's first block with these words, where the page says; what it printed."""
        block = next(block for block in self.page if words in block.commands)
        self.followed.add(block)
        given = {"ADDRESS": self.manager.address, **environment}
        if new_host is not None:
            given["NEW_HOST"] = new_host.name
        host = new_host if block.where == "new-host" else self.manager
        assert host is not None, f"{words}: on which host?"
        commands = block.commands.replace(_DEPLOY, _DEPLOY_HERE)
        return host.type_in(commands, self.clone, within=180, **given)

    def join(self, host: Host) -> None:
        """Let the host join, and give it the label of consumers."""
        token = self.follow("join-token").strip()
        self.follow("docker swarm join --token", new_host=host, TOKEN=token)
        self.follow('consumer=true "$NEW_HOST"', new_host=host)

    def containers(self, host: Host, service: str) -> list[str]:
        """Ids of the service's running containers on the host."""
        chosen = f"label=com.docker.swarm.service.name=inference_{service}"
        return host.docker("ps", "--quiet", "--filter", chosen).split()

    def log(self, host: Host, service: str) -> str:
        """What the service's containers on the host wrote, those that ended included."""
        chosen = f"label=com.docker.swarm.service.name=inference_{service}"
        ids = host.docker("ps", "--all", "--quiet", "--filter", chosen).split()
        return "\n".join(host.docker("logs", one, both=True) for one in ids)

    def is_ready(self, host: Host) -> bool:
        """Whether a consumer there has begun to ask for work."""
        return "consumer_ready" in self.log(host, "job-consumer")

    def started(self, host: Host) -> list[str]:
        """The tasks whose attempts began on the host, by their short uids."""
        lines = [json.loads(line) for line in self.log(host, "job-consumer").splitlines() if line.startswith("{")]
        return [line["task"] for line in lines if line["action"] == "attempt_started"]

    def hosts_of(self, uid: str) -> list[Host]:
        """The hosts that attempts of the task began on."""
        return [host for host in self.hosts if short_uid(uid) in self.started(host)]

    def node(self, host: Host, field: str) -> str:
        """What the manager says of the host, for example its ``.Status.State``."""
        return self.manager.docker("node", "inspect", "--format", f"{{{{{field}}}}}", host.name)

    def diary(self) -> str:
        """What a person would look at first when something is wrong."""
        asked = [("node", "ls"), ("stack", "services", "inference"), ("stack", "ps", "--no-trunc", "inference")]
        answers = [self.manager.docker(*question) for question in asked]
        services = (
            "reverse-proxy",
            "public-api",
            "private-api",
            "rabbitmq",
            "postgres",
            "job-consumer",
            "online-gateway",
            "modelhost",
        )
        logs = [
            f"--- {service} on {host.name}\n{self.log(host, service)[-1500:]}"
            for service in services
            for host in self.hosts
        ]
        return "\n".join([*answers, *logs])


@pytest.fixture(scope="session")
def platform_images(image_engine: docker.DockerClient) -> Sequence[str]:
    """All images of the platform and its examples, made here and up to date."""
    try:
        return make_offline(None, {})
    except MakingFailed as error:
        missing(str(error))


@pytest.fixture(scope="module")
def swarm(
    platform_images: Sequence[str], model_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Swarm]:
    """The first host with the deployed stack, and a second that joined; the third is a bare host with images."""
    clone = tmp_path_factory.mktemp("swarm") / "clone"
    copy_of_the_repository(clone)
    (clone / ".env").write_text("".join(f"{name}={value}\n" for name, value in SETTINGS.items()))
    with lan(HOSTS) as hosts:
        _bring_images(hosts, platform_images, model_image)
        swarm = Swarm(hosts, clone)
        with _telling(swarm):
            swarm.follow("docker swarm init")
            swarm.follow("docker stack deploy")
            swarm.follow("/health/ready")
            swarm.follow('consumer=true "$(hostname)"')
            swarm.join(hosts[1])
            for host in hosts[:2]:
                eventually(functools.partial(swarm.is_ready, host), within=90, every=0.5)
        yield swarm


@contextlib.contextmanager
def _telling(swarm: Swarm) -> Iterator[None]:
    """Add what the swarm says of itself to an error."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{swarm.diary()}") from error


def _bring_images(hosts: Sequence[Host], platform_images: Sequence[str], model_image: str) -> None:
    """The platform's to the first, those that run models to all, as a person carries them to closed hosts."""
    consumer = service_tag("job_consumer", {})
    needless = {*example_tags(), *(external.drop_in for external in EXTERNALS if external.variable == "PYTHON_IMAGE")}
    all_needed = [tag for tag in platform_images if tag not in needless]
    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(hosts[0].load, [*all_needed, model_image])]
        loads += [threads.submit(host.load, [consumer, model_image]) for host in hosts[1:]]
        for load in loads:
            load.result()

"""Three Docker engines as three hosts of one network: a namespace each for network, mounts, processes and host name.

Every host believes itself alone on a usual machine (``/var/lib/docker``, ``/run/docker.sock``); what it stores is in memory. It dies
whole with its first process, so that nothing outlives the tests: not even tests that are killed, for the kernel then kills that
process, and the next :func:`lan` removes the network and the control groups, whose owner it knows from a lock.
"""

import contextlib
import fcntl
import functools
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import psutil

from tests.support.requirements import missing
from tests.support.waiting import eventually

_ROOMS = Path(tempfile.gettempdir()) / "inference-server-lans"
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_TOOLS = ("dockerd", "docker", "ip", "nsenter", "unshare", "setpriv")

_COMMAND_SECONDS = 60
_BYTES_PER_HOST = 3 * 2**29

_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /var/lib/docker
hostname "$2"
dockerd --host "unix://$1/docker.sock" --host unix:///run/docker.sock --cgroup-parent "/$3" \
    --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2
exit
"""
"""$1: the host's folder, $2: its name, $3: the control group. The shell stays: it reaps what the engine's children leave."""


class Host:
    """One engine with an address of its own; ``index`` counts from 1."""

    def __init__(self, lan: str, subnet: str, index: int, folder: Path) -> None:
        self.name = f"host-{index}"
        self.address = f"{subnet}.{index}"
        self.namespace = f"{lan}-h{index}"
        self.docker_host = f"unix://{folder}/docker.sock"
        self._lan = lan
        self._folder = folder
        self._log = folder / "dockerd.log"

    def plug_in(self) -> None:
        """Give it a network card at the switch."""
        switch = _switch_of(self._lan)
        _ip("netns", "add", self.namespace)
        _ip(
            *("-n", switch, "link", "add", self.namespace, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.namespace),
        )
        _ip("-n", switch, "link", "set", self.namespace, "master", "switch", "up")
        _ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        _ip("-n", self.namespace, "link", "set", "eth0", "up")

    def boot(self) -> None:
        """Start its engine; :meth:`wait_until_up` waits for it. The host dies with the thread that calls this."""
        self._folder.mkdir()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.namespace}"),
                    *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("bash", "-c", _BOOT, "boot", str(self._folder), self.name, self._lan),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._first,) = eventually(self._children, within=30)

    def _children(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            missing(f"a machine cannot be imitated by namespaces here: {self.log[-500:]}")
        return psutil.Process(self._process.pid).children()

    def wait_until_up(self) -> None:
        eventually(self._answers, within=60, every=0.1)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            missing(f"a Docker engine does not start in a namespace of its own: {self.log[-500:]}")
        return self._command("version").returncode == 0

    @property
    def log(self) -> str:
        """What its engine wrote."""
        return self._log.read_text(errors="replace")

    def type_in(self, commands: str, folder: Path, within: float = 120, **environment: str) -> str:
        """What a person sees who types the commands on this host, in the folder; an AssertionError where one fails."""
        inside = ("nsenter", f"--target={self._first.pid}", "--mount", "--uts", "--net")
        usual = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        done = subprocess.run(
            [*inside, f"--wd={folder}", "bash", "-euo", "pipefail", "-c", commands],
            env={**usual, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {commands}\n{done.stdout[-4000:]}"
        return done.stdout

    def docker(self, *arguments: str, both: bool = False) -> str:
        """What ``docker ARGUMENTS`` prints here (``both``: on stderr, too); an AssertionError with its complaint."""
        done = self._command(*arguments)
        assert done.returncode == 0, f"{self.name}: docker {' '.join(arguments)}: {done.stderr.strip()}"
        return (done.stdout + done.stderr if both else done.stdout).strip()

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": self.docker_host},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def load(self, images: Sequence[str], within: float = 300) -> None:
        """Copy images here from the environment's engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            loaded = subprocess.run(
                ["docker", "load", "--quiet"],
                env={**os.environ, "DOCKER_HOST": self.docker_host},
                stdin=save.stdout,
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
            )
        assert (save.returncode, loaded.returncode) == (0, 0), f"{self.name}: docker load: {loaded.stderr}"

    def cut_off(self) -> None:
        """Pull its network cable; what runs there goes on running."""
        _ip("-n", _switch_of(self._lan), "link", "set", self.namespace, "down")

    def reconnect(self) -> None:
        _ip("-n", _switch_of(self._lan), "link", "set", self.namespace, "up")

    def power_off(self) -> None:
        """Kill all that runs on it, at once; :meth:`wait_until_off` waits for the last of it."""
        self._process.kill()
        self._process.wait(30)

    def wait_until_off(self) -> None:
        _, alive = psutil.wait_procs([self._first], timeout=60)  # the first process is gone when all others are
        assert not alive, f"{self.name} does not die: {alive}"


@contextlib.contextmanager
def lan(hosts: int) -> Iterator[list[Host]]:
    """So many hosts with running engines on one network, which this process reaches too.

    Skips the test (fails it in CI) where the machine or its user cannot do that.
    """
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or lacking:
        missing(f"hosts in namespaces take root and {', '.join(lacking or _TOOLS)} (Debian: docker.io, iproute2)")
    if psutil.virtual_memory().available < hosts * _BYTES_PER_HOST:
        missing(f"{hosts} hosts in namespaces take {hosts * _BYTES_PER_HOST >> 20} MiB of memory")
    with ExitStack() as cleaning:
        with _one_session_at_a_time():
            _remove_rooms_of_the_dead()
            name, room = cleaning.enter_context(_room())
            cleaning.callback(_remove_control_groups, name)
            cleaning.callback(_remove_network, name)
            subnet = _lay_out_network(name)
        all_hosts = [Host(name, subnet, index, room / f"h{index}") for index in range(1, hosts + 1)]
        for host in all_hosts:
            host.plug_in()
            host.boot()
            cleaning.callback(host.wait_until_off)
        for host in all_hosts:
            cleaning.callback(host.power_off)
        for host in all_hosts:
            host.wait_until_up()
        yield all_hosts


@contextlib.contextmanager
def _one_session_at_a_time() -> Iterator[None]:
    """Lest two take the same addresses, or one removes what another is just making."""
    _ROOMS.mkdir(exist_ok=True)
    with (_ROOMS / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _room() -> Iterator[tuple[str, Path]]:
    """A name that no other network has, and its folder; locked as long as this process lives."""
    name = f"isw-{secrets.token_hex(2)}"
    folder = _ROOMS / name
    folder.mkdir()
    with _locked(folder) as lock:
        assert lock is not None, f"{folder} is new, and locked by another"
        try:
            yield name, folder
        finally:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[bytes] | None]:
    """The folder's lock, or None where another process holds it. Children do not inherit it."""
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock


def _remove_rooms_of_the_dead() -> None:
    """Remove what killed sessions left: their processes are gone, as each host dies with its session."""
    for folder in _ROOMS.glob("isw-*"):
        with _locked(folder) as lock:
            if lock is not None:
                _remove_network(folder.name)
                _remove_control_groups(folder.name)
                shutil.rmtree(folder)


def _switch_of(name: str) -> str:
    return f"{name}-switch"


def _lay_out_network(name: str) -> str:
    """A switch in a namespace of its own, where this machine's firewall has no say, and a cable to it; the subnet."""
    subnet = _free_subnet()
    switch = _switch_of(name)
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
    except AssertionError as error:
        missing(f"no network namespaces with a bridge here: {error}")
    _ip("-n", switch, "link", "set", "switch", "up")
    _ip("link", "add", name, "type", "veth", "peer", "name", "outside", "netns", switch)
    _ip("-n", switch, "link", "set", "outside", "master", "switch", "up")
    _ip("address", "add", f"{subnet}.254/24", "dev", name)
    _ip("link", "set", name, "up")
    return subnet


def _free_subnet() -> str:
    """The first three numbers of a network that this machine has no address in; from the range for tests (RFC 2544)."""
    addresses = json.loads(_ip("-json", "-4", "address"))
    taken = {entry["local"].rpartition(".")[0] for link in addresses for entry in link.get("addr_info", [])}
    return next(subnet for number in range(256) if (subnet := f"198.19.{number}") not in taken)


def _remove_network(name: str) -> None:
    """Remove its namespaces; the links in them go with them, as does the cable's other end."""
    for namespace in json.loads(_ip("-json", "netns", "list") or "[]"):
        if namespace["name"].startswith(f"{name}-"):
            _ip("netns", "delete", namespace["name"])


def _remove_control_groups(name: str) -> None:
    """Remove the groups that the engines made: of each controller (version 1), or of all (version 2)."""
    for top in (*_CONTROL_GROUPS.glob(f"*/{name}"), *_CONTROL_GROUPS.glob(name)):
        for folder, _, _ in os.walk(top, topdown=False):
            eventually(functools.partial(_removed, Path(folder)), within=60, every=0.1)


def _removed(control_group: Path) -> bool:
    """Whether it is gone now; the kernel lets it go a moment after its last process."""
    with contextlib.suppress(OSError):
        control_group.rmdir()
    return not control_group.exists()


def _ip(*arguments: str) -> str:
    """What ``ip ARGUMENTS`` prints; an AssertionError with its complaint where it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout

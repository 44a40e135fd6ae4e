"""A second host beside this machine: a network namespace joined to ours by a cable of its own."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.requirements import missing

_CALL_SECONDS = 30
_KNOCK = """\
import json, socket, sys
answers = {}
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    with socket.socket() as knock:
        knock.settimeout(2)
        try:
            knock.connect((host, int(port)))
            answers[target] = True
        except OSError:
            answers[target] = False
print(json.dumps(answers))
"""


class OutsideHost:
    """It reaches this machine at ``address``, and sends all other traffic through it."""

    def __init__(self) -> None:
        number = next(number for number in range(1, 255) if not Path(f"/sys/class/net/out{number}").exists())
        self._name = f"outside-{secrets.token_hex(3)}"
        self._cable = f"out{number}"
        self.address = f"198.18.{number}.1"
        self._own = f"198.18.{number}.2"

    def plug_in(self) -> None:
        """Make the namespace, the cable and the route."""
        inside = ("ip", "netns", "exec", self._name)
        _call("ip", "netns", "add", self._name)
        _call("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _call("ip", "address", "add", f"{self.address}/30", "dev", self._cable)
        _call("ip", "link", "set", self._cable, "up")
        _call(*inside, "ip", "address", "add", f"{self._own}/30", "dev", "eth0")
        _call(*inside, "ip", "link", "set", "eth0", "up")
        _call(*inside, "ip", "route", "add", "default", "via", self.address)

    def unplug(self) -> None:
        """Take it all away; the cable goes with its end."""
        _call("ip", "netns", "delete", self._name)

    def reaches(self, targets: Sequence[str]) -> set[str]:
        """Those of the ``address:port`` targets that accept a connection from there."""
        answers = json.loads(_call("ip", "netns", "exec", self._name, sys.executable, "-c", _KNOCK, *targets))
        return {target for target, answered in answers.items() if answered}


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def outside_host() -> Iterator[OutsideHost]:
    """One such host for the test."""
    if os.geteuid() != 0 or not Path("/proc/self/ns/net").exists():
        missing("a network namespace takes root")
    host = OutsideHost()
    try:
        host.plug_in()
    except RuntimeError as error:
        with contextlib.suppress(RuntimeError):
            host.unplug()
        missing(f"no network namespace: {error}")
    yield host
    host.unplug()

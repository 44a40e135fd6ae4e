"""Installs the servers and tools that the tests need and this machine lacks; where it may not, it says what will be skipped.

``python -m tests.support.install`` is the first step of ``make test``. The tests start the servers themselves, and stop them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deployment import compose_plugin

NEEDED = {
    "docker.io": "dockerd",
    "iptables": "iptables",
    "iproute2": "ip",
    "rabbitmq-server": "rabbitmq-server",
    "postgresql": "/usr/lib/postgresql/*/bin/initdb",  # its wrappers on the PATH may be there without a server
    "bubblewrap": "bwrap",
    "debootstrap": "debootstrap",
    "busybox-static": "busybox",
    "curl": "curl",
    "wrk": "wrk",  # for the benchmarks
}
"""Debian package -> a program that it brings: its name on the PATH, or a pattern of its path."""

_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_packages() -> list[str]:
    """The Debian packages whose programs are not here."""
    return [package for package, program in NEEDED.items() if not _is_here(program)]


def _is_here(program: str) -> bool:
    if program.startswith("/"):
        return any(Path("/").glob(program.lstrip("/")))
    return shutil.which(program, path=os.environ.get("PATH", "") + ":" + _SYSTEM_FOLDERS) is not None


def main() -> int:
    """Install what is missing; 1 when that failed and CI is set."""
    installed = _install_packages(missing_packages())
    has_compose = compose_plugin.main() == 0
    return 1 if os.environ.get("CI") and not (installed and has_compose) else 0


def _install_packages(missing: list[str]) -> bool:
    if not missing:
        return True
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"not here, and not installed (needs root on Debian): {', '.join(missing)}; their tests are skipped")
        return False
    print(f"installing {', '.join(missing)}", flush=True)
    # Nothing is started by an installation: the tests start their own servers.
    policy = Path("/usr/sbin/policy-rc.d")
    made_policy = not policy.exists()
    if made_policy:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode != 0:
                print(done.stdout.decode(errors="replace")[-4000:], file=sys.stderr)
                return False
    finally:
        if made_policy:
            policy.unlink()
    return True


if __name__ == "__main__":
    sys.exit(main())

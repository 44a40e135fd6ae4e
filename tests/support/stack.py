"""A deployment made by following documentation/how_to/deploy.md to the letter, in a fresh copy of the repository."""

import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_client import InferenceClient
from tests.support.compose import ROOT

PAGE = ROOT / "documentation" / "how_to" / "deploy.md"
HTTPS_URL = "https://localhost"

_PAGE_SECONDS = 1800
_MAKE_SECONDS = 600
_BLOCK = re.compile(r"^```sh\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "the block ends here"


@dataclass(frozen=True)
class Block:
    """One block of commands of a page, and what it printed."""

    commands: str
    output: str


class Deployment:
    """A compose project in a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.blocks: list[Block] = []

    @property
    def ca(self) -> Path:
        """The authority of its certificate."""
        return self.folder / "traefik" / "certs" / "ca.crt"

    def client(self) -> InferenceClient:
        """A client that comes through Traefik and verifies the certificate."""
        return InferenceClient(HTTPS_URL, ca=self.ca)

    def follow(self, page: Path) -> None:
        """Run the page's commands in one shell, one block after the other; stops at the first that fails.

        Raises
        ------
        AssertionError
            A command failed; the message holds the end of what was printed.
        """
        blocks = [match["commands"] for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
        script = "".join(f"{block}\necho '{_MARK}'\n" for block in blocks)
        output = self._call(["bash", "-euo", "pipefail", "-c", script], _PAGE_SECONDS)
        printed = output.split(f"{_MARK}\n")
        self.blocks += [Block(commands, text) for commands, text in zip(blocks, printed, strict=False)]

    def make(self, *targets: str) -> str:
        """Run make with these targets; what it printed."""
        return self._call(["make", *targets], _MAKE_SECONDS)

    def set(self, **variables: str) -> None:
        """Change variables in .env; `make up` brings them to the services."""
        path = self.folder / ".env"
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in variables]
        path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in variables.items())]) + "\n")

    def compose(self, *arguments: str) -> str:
        """Run docker compose; what it printed."""
        return self._call(["docker", "compose", *arguments], _MAKE_SECONDS)

    def shell(self, script: str) -> str:
        """Run lines of a shell, as a page has them; what they printed."""
        return self._call(["bash", "-euo", "pipefail", "-c", script], _MAKE_SECONDS)

    def containers(self, service: str) -> list[str]:
        """Ids of the service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def close(self) -> None:
        """Remove it with all its data, and with the certificates that a reset keeps."""
        self._call([sys.executable, "-m", "deployment.reset", "all", "--yes"], _MAKE_SECONDS)
        self.compose("--profile", "*", "down", "--volumes")

    def _call(self, command: Sequence[str], seconds: float) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)[:80]} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout


def copy_of_the_repository(target: Path) -> None:
    """What a clone of the present state would hold: tracked files and new ones, nothing that git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in names:
            tar.add(ROOT / name, name)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        tar.extractall(target, filter="tar")

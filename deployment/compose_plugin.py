"""Gives this user Docker's compose and buildx plugins where they are missing: ``python3 -m deployment.compose_plugin``.

Debian 12 has neither; the packages of Debian 13 hold programs that run on both. They come from the mirror that this
machine's apt is configured with, through folders of our own: neither the system's packages nor its sources change, and
no root is needed. Standard library alone: hosts run this before anything is installed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

OLDEST_COMPOSE = (2, 24)
"""The first compose with every element of our files."""

_SUITE = "trixie"
_PACKAGES = ("docker-compose", "docker-buildx")
_PLUGINS_IN_PACKAGE = "usr/libexec/docker/cli-plugins"
_SUITE_ALIASES = ("stable", "oldstable", "oldoldstable", "testing", "unstable", "sid")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ASK_SECONDS = 30.0
_FETCH_SECONDS = 600.0
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_HOW_ELSE = (
    "install Docker's own docker-compose-plugin package, or put its program docker-compose into ~/.docker/cli-plugins"
)


class PluginUnavailable(Exception):
    """The plugins could not be had here; the message says why and what to do instead."""


def is_recent(answer: str | None) -> bool:
    """Whether the answer of ``docker compose version --short`` names a version that is new enough; None: no answer."""
    found = _VERSION.match(answer.strip()) if answer is not None else None
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_COMPOSE


def mirrors(os_release: Mapping[str, str], targets: str) -> list[str]:
    """The mirrors of Debian itself among apt's index targets, lines of ``release|repository|component``.

    Raises
    ------
    PluginUnavailable
        Not Debian, or apt has no mirror of it.
    """
    if os_release.get("ID") != "debian":
        name = os_release.get("PRETTY_NAME", "this system")
        raise PluginUnavailable(f"{name} is not Debian, so there is no package mirror to ask: {_HOW_ELSE}.")
    releases = {os_release.get("VERSION_CODENAME", _SUITE), *_SUITE_ALIASES}
    rows = [line.split("|") for line in targets.splitlines() if line.count("|") == 2]
    found = [repository for release, repository, component in rows if release in releases and component == "main"]
    if not found:
        raise PluginUnavailable(f"apt has no mirror of Debian in its sources: add one, or {_HOW_ELSE}.")
    return list(dict.fromkeys(found))


def install_plugins(folder: Path) -> list[Path]:
    """Fetch both plugins into the folder, replacing what has their names; the files.

    Raises
    ------
    PluginUnavailable
        No Debian, no mirror, or the mirror did not deliver.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise PluginUnavailable(f"{tool} is not here, so Debian's packages cannot be had: {_HOW_ELSE}.")
    form = "$(RELEASE)|$(REPO_URI)|$(COMPONENT)"
    targets = _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], _ASK_SECONDS)
    failures = []
    for mirror in mirrors(_os_release(), targets):
        with tempfile.TemporaryDirectory(prefix="compose-plugin-") as scratch:
            try:
                _fetch(mirror, Path(scratch))
            except PluginUnavailable as error:
                failures.append(str(error))
                continue
            return _keep(Path(scratch) / "unpacked" / _PLUGINS_IN_PACKAGE, folder)
    raise PluginUnavailable("\n".join((*failures, f"No mirror delivered: {_HOW_ELSE}.")))


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}


def _fetch(mirror: str, scratch: Path) -> None:
    """Download the packages of our suite with apt's own checks of signatures, and unpack them beside each other."""
    signed = f" [signed-by={_KEYRING}]" if _KEYRING.is_file() else ""
    sources = scratch / "sources.list"
    sources.write_text(f"deb{signed} {mirror} {_SUITE} main\n", encoding="utf-8")
    for name in ("lists/partial", "cache/archives/partial", "packages", "unpacked"):
        (scratch / name).mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null", "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": scratch / "lists", "Dir::Cache": scratch / "cache",
        "APT::Default-Release": "", "APT::Sandbox::User": "root", "Acquire::Retries": "3", "Acquire::Languages": "none",
    }  # fmt: skip
    apt = ["apt-get", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    _run([*apt, "update"], _FETCH_SECONDS)
    _run([*apt, "download", *_PACKAGES], _FETCH_SECONDS, folder=scratch / "packages")
    for package in (scratch / "packages").glob("*.deb"):
        _run(["dpkg", "--extract", str(package), str(scratch / "unpacked")], _FETCH_SECONDS)


def _keep(unpacked: Path, folder: Path) -> list[Path]:
    """Move the programs into place in one step each: another process may be starting one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for program in sorted(unpacked.iterdir()):
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{program.name}-", delete=False) as half:
            shutil.copyfile(program, half.name)
        Path(half.name).chmod(0o755)
        kept.append(Path(half.name).replace(folder / program.name))
    return kept


def _run(command: Sequence[str], seconds: float, folder: Path | None = None) -> str:
    """What the command printed.

    Raises
    ------
    PluginUnavailable
        It failed, or took too long.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PluginUnavailable(f"{' '.join(command[:2])} took longer than {seconds:.0f} s") from error
    if done.returncode != 0:
        last_lines = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise PluginUnavailable(f"{' '.join(command[:2])} failed; it said:\n{last_lines}")
    return done.stdout


def compose_version() -> str | None:
    """What ``docker compose version --short`` answers; None where compose is missing or does not work.

    Raises
    ------
    PluginUnavailable
        There is no ``docker`` command at all.
    """
    if shutil.which("docker") is None:
        raise PluginUnavailable("there is no docker command; run: apt-get install docker.io")
    try:
        return _run(["docker", "compose", "version", "--short"], _ASK_SECONDS).strip()
    except PluginUnavailable:
        return None


def plugin_folder() -> Path:
    """Where this user's docker command looks for plugins."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"


def main() -> int:
    """Install the plugins unless compose is new enough; exit status 1 and a message where they cannot be had."""
    try:
        present = compose_version()
        if is_recent(present):
            sys.stdout.write(f"docker compose {present} is here\n")
            return 0
        oldest = ".".join(map(str, OLDEST_COMPOSE))
        lacking = f"older than {oldest}: {present}" if present else "not here"
        sys.stdout.write(f"docker compose is {lacking}; fetching it from this machine's Debian mirror\n")
        sys.stdout.flush()
        for program in install_plugins(plugin_folder()):
            sys.stdout.write(f"installed {program}\n")
    except PluginUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

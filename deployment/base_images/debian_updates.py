"""Brings a fresh Debian file tree up to date: debootstrap takes the main archive alone, without security updates.

This machine's apt works on the tree from outside. So its own proxy, certificates and credentials count, the tree needs
no name resolution, and nothing of all that gets into it. Inside run only dpkg and the packages' scripts.
"""

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployment.base_images import BaseImageError, Updates
from deployment.base_images.commands import end_of, run

log = logging.getLogger(__name__)

SUITES = ("{}", "{}-updates", "{}-security")
"""What a tree is brought up to date from, for the name of its suite. The last one is in an archive of its own."""

_ASK_SECONDS = 300.0
_DOWNLOAD_SECONDS = 900.0
_INSTALL_SECONDS = 600.0

_KEYRING = "usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR_OF_DEBOOTSTRAP = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(?P<mirror>\S+)", re.MULTILINE)
_CREDENTIALS = re.compile(r"(?<=//)[^/\s]*@")
_KEPT_BACK = re.compile(r"^\d+ upgraded,.* (?P<packages>\d+) not upgraded\.$", re.MULTILINE)
_HOW_TO_NAME_IT = (
    "Name the address of Debian's security archive, or of a mirror of it, with --security-mirror URL "
    "(`make images-offline SECURITY_MIRROR=URL REBUILD=1`)."
)

_SETTINGS = """\
#clear APT::Architectures;
#clear APT::Update;
#clear DPkg::Options;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
APT::Default-Release "";
APT::Get::List-Cleanup "false";
APT::Get::Remove "false";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
DPkg::Chroot-Directory "{tree}";
DPkg::Options {{ "--force-unsafe-io"; }};
DPkg::Use-Pty "false";
Dir::Cache "{tree}/var/cache/apt/";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "{sources}";
Dir::Etc::SourceParts "/dev/null";
Dir::Log "{tree}/var/log/apt/";
Dir::State "{tree}/var/lib/apt/";
Dir::State::Status "{tree}/var/lib/dpkg/status";
"""
"""On top of this machine's settings: the tree in place of the machine, without its hooks, pins and architectures.

The sandbox user could not look into the tree's folder, which is closed because it holds programs with setuid bits.
"""

_INSIDE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
}
"""All that the packages' scripts see of the environment: a proxy's password is none of their business."""


def bring_up_to_date(tree: Path, suite: str, security_mirror: str | None = None) -> Updates:
    """Update the tree's packages, and let its own apt know where from; what it got.

    Where no security archive is known, or none answers, a warning says so, and the tree stays as it was or gets the
    other updates alone. ``security_mirror`` None takes the archive that this machine's apt has in its sources.

    Raises
    ------
    BaseImageError
        debootstrap left no mirror in the tree, or the updates could not be installed in it.
    """
    if shutil.which("apt-get") is None:
        _warn("this machine has no apt-get; make the images on Debian.")
        return Updates.NONE
    archive = _mirror_of(tree)
    main, others = (_Source(archive, form.format(suite)) for form in SUITES[:-1])
    with tempfile.TemporaryDirectory(prefix="updates-") as scratch:
        apt = _Apt(tree, Path(scratch))
        if not _answers(apt, main):
            _warn("debootstrap reached the mirror, and apt does not. Name one that both reach with --mirror URL.")
            return Updates.NONE
        security = _security_source(apt, SUITES[-1].format(suite), security_mirror)
        known = [main, *([others] if _answers(apt, others) else []), *([security] if security else [])]
        if not apt.has_downloaded(known):
            return Updates.NONE
        with _starting_nothing(tree):
            complete = apt.has_installed()
    (tree / "etc/apt/sources.list").write_text("".join(source.line_inside() for source in known), encoding="utf-8")
    return Updates.SECURITY if security and complete else Updates.NONE


def security_archives(targets: str) -> list[str]:
    """The archives with security updates among apt's index targets, lines of ``release|repository|component``.

    Another vendor's may be among them; Debian's signature, which is asked for later, tells them apart.
    """
    rows = [line.split("|") for line in targets.splitlines() if line.count("|") == 2]
    return list(
        dict.fromkeys(
            archive for release, archive, component in rows if release.endswith("-security") and component == "main"
        )
    )


def security_archives_of_this_machine() -> list[str]:
    """Those in the sources of this machine's apt, which need not have fetched anything from them yet."""
    form = "$(RELEASE)|$(REPO_URI)|$(COMPONENT)"
    command = ["apt-get", "indextargets", "--no-release-info", "--format", form, "Created-By: Packages"]
    status, said = _run(command, _ASK_SECONDS, {**os.environ, "LC_ALL": "C"})
    return security_archives(said) if status == 0 else []


@dataclass(frozen=True)
class _Source:
    """One suite of one archive."""

    archive: str
    suite: str

    @property
    def name(self) -> str:
        """For people, without the password that may be in an address."""
        return f"{self.suite} of {_without_credentials(self.archive)}"

    def line_inside(self) -> str:
        """For the tree's own apt."""
        return self._line(Path("/"), _without_credentials(self.archive))

    def line_outside(self, tree: Path) -> str:
        """For an apt outside the tree, with the keys inside it."""
        return self._line(tree, self.archive)

    def _line(self, root: Path, archive: str) -> str:
        return f"deb [signed-by={root / _KEYRING}] {archive} {self.suite} main\n"


class _Apt:
    """Works on a tree with the apt-get of this machine."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        self._tree = tree
        self._sources = scratch / "sources.list"
        settings = scratch / "apt.conf"
        settings.write_text(_SETTINGS.format(tree=tree, sources=self._sources), encoding="utf-8")
        self._command = ["apt-get", "--config-file", str(settings), "--quiet", "--yes"]
        for folder in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
            (tree / folder).mkdir(parents=True, exist_ok=True)

    def complaint(self, source: _Source) -> str | None:
        """Fetch the source's list of packages; None when it is there, otherwise what apt said."""
        self._take([source])
        status, said = self._ask(_ASK_SECONDS, "update")
        return None if status == 0 else end_of(said)

    def has_downloaded(self, sources: Sequence[_Source]) -> bool:
        """Whether the updates of these sources are there to install; a warning says why not."""
        self._take(sources)
        status, said = self._ask(_DOWNLOAD_SECONDS, "--download-only", "dist-upgrade")
        if status != 0:
            _warn(f"they could not be downloaded; try again later. apt said:\n{end_of(said)}")
        return status == 0

    def has_installed(self) -> bool:
        """Install what was downloaded, out of sight of this machine's processes and network; whether that was all.

        Raises
        ------
        BaseImageError
            A package or this system refused.
        """
        alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", f"--mount-proc={self._tree / 'proc'}"]
        status, said = _run([*alone, *self._command, "--no-download", "dist-upgrade"], _INSTALL_SECONDS, _INSIDE)
        if status != 0:
            raise BaseImageError(
                "Debian's updates could not be installed in the file tree, which needs root with all its rights "
                f"(in a container: a privileged one). apt said:\n{end_of(said)}"
            )
        kept_back = _KEPT_BACK.search(said)
        complete = kept_back is not None and int(kept_back["packages"]) == 0
        if not complete:
            _warn(f"not all of them could be installed. apt said:\n{said}")
        return complete

    def _take(self, sources: Sequence[_Source]) -> None:
        lines = (source.line_outside(self._tree) for source in sources)
        self._sources.write_text("".join(lines), encoding="utf-8")

    def _ask(self, seconds: float, *words: str) -> tuple[int, str]:
        status, said = _run([*self._command, *words], seconds, {**os.environ, "LC_ALL": "C"})
        return status, _without_credentials(said)


def _without_credentials(text: str) -> str:
    return _CREDENTIALS.sub("", text)


def _mirror_of(tree: Path) -> str:
    """The mirror that debootstrap took the tree's packages from."""
    sources = tree / "etc/apt/sources.list"
    found = _MIRROR_OF_DEBOOTSTRAP.search(sources.read_text(encoding="utf-8")) if sources.is_file() else None
    if found is None:
        raise BaseImageError(f"this debootstrap names no mirror in {sources}; use the debootstrap of Debian")
    return found["mirror"]


def _answers(apt: _Apt, source: _Source) -> bool:
    complaint = apt.complaint(source)
    if complaint is not None:
        log.warning("warning: no packages from %s, which does not answer. apt said:\n%s", source.name, complaint)
    return complaint is None


def _security_source(apt: _Apt, suite: str, archive: str | None) -> _Source | None:
    """The first that answers: of the archive that was named, otherwise of those that this machine knows."""
    sources = [_Source(known, suite) for known in ([archive] if archive else security_archives_of_this_machine())]
    for source in sources:
        if _answers(apt, source):
            return source
    reason = "their archive does not answer." if sources else "this machine's apt has no source of them."
    _warn(f"{reason} {_HOW_TO_NAME_IT}")
    return None


def _warn(reason: str) -> None:
    log.warning("warning: this image is made WITHOUT Debian's security updates: %s", reason)


@contextmanager
def _starting_nothing(tree: Path) -> Iterator[None]:
    """Forbid the packages' scripts to start the servers that they bring (the interface of Debian's invoke-rc.d)."""
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def _run(command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and output; that of a command without an end is a failure too."""
    try:
        return run(command, seconds, environment)
    except subprocess.TimeoutExpired:
        return 1, f"it took longer than {seconds:.0f} s"

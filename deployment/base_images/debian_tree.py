"""Images made from Debian packages alone: for machines that reach a package mirror but no registry."""

import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import docker

from deployment.base_images import DEFAULT_MIRRORS, UPDATES_LABEL, BaseImageError, Mirrors
from deployment.base_images.commands import end_of, run
from deployment.base_images.debian_updates import SUITES, bring_up_to_date
from deployment.base_images.engine_images import ImageFiles, cache_folder, ensure_image, recipe_identity

log = logging.getLogger(__name__)

_BOOTSTRAP_SECONDS = 900.0
_STEP_SECONDS = 300.0

_LEFTOVERS = (
    "var/cache/apt", "var/cache/debconf", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man",
    "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion",
    "etc/resolv.conf", "etc/hostname",  # debootstrap copies this machine's
)  # fmt: skip

WITHOUT_SETUID = ("find", "/usr", "-xdev", "-type", "f", "-perm", "/6000", "-exec", "chmod", "a-s", "{}", "+")
"""Command for a server's tree: nobody in it has a use for programs that raise their privileges."""

NEEDED_BY_INSTALLATION_ALONE = (
    "adduser", "apt", "debconf", "debian-archive-keyring", "init-system-helpers", "libapt-pkg7.0", "libdb5.3t64",
    "perl-base", "sqv",
)  # fmt: skip
"""Packages of trixie that a container which installs nothing can do without."""


@dataclass(frozen=True)
class TreeFile:
    """A file of our own in the tree; ``path`` is absolute inside it."""

    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class DebianRecipe:
    """All that decides what is in an image; a change of any of it makes the image anew."""

    tag: str
    suite: str
    packages: tuple[str, ...]
    settings: tuple[str, ...]
    """Dockerfile instructions: ENV, ENTRYPOINT, CMD, VOLUME, EXPOSE, STOPSIGNAL, USER."""
    commands: tuple[tuple[str, ...], ...] = ()
    """Run inside the tree, as root, before anything is taken out of it."""
    unneeded: tuple[str, ...] = ()
    """Packages that came as dependencies and are taken out again."""
    emptied: tuple[str, ...] = ()
    """Patterns below the root, beside documentation and caches: files go, folders stay without their content."""
    files: tuple[TreeFile, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """(path, target) of symbolic links."""


def ensure_debian_image(
    engine: docker.DockerClient, recipe: DebianRecipe, *, rebuild: bool = False, mirrors: Mirrors = DEFAULT_MIRRORS
) -> str:
    """The recipe's tag, once the engine has the image; made by debootstrap and apt unless it is there already.

    That takes root and about a minute. The label ``UPDATES_LABEL`` says whether it has Debian's security updates.

    Raises
    ------
    BaseImageError
        Not root, debootstrap or the updates failed, or the engine refused the import.
    """

    def make_files(scratch: Path) -> ImageFiles:
        _check_tools()
        log.info("making %s from %s", recipe.tag, mirrors.main or "debootstrap's own mirror")
        tree = scratch / "root"
        _bootstrap(recipe, tree, mirrors.main)
        updates = bring_up_to_date(tree, recipe.suite, mirrors.security)
        _finish(recipe, tree)
        return ImageFiles(_archive(recipe, tree), {UPDATES_LABEL: updates.value})

    identity = recipe_identity((recipe, _LEFTOVERS, SUITES))
    return ensure_image(engine, recipe.tag, identity, recipe.settings, make_files, rebuild=rebuild)


def _check_tools() -> None:
    if shutil.which("debootstrap") is None:
        raise BaseImageError("debootstrap is not installed; run: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise BaseImageError("debootstrap needs root to make a file tree with its owners; run this command with sudo.")


def _bootstrap(recipe: DebianRecipe, tree: Path, mirror: str | None) -> None:
    packages = cache_folder() / "packages"
    packages.mkdir(exist_ok=True)
    command = [
        "debootstrap", "--variant=minbase", f"--cache-dir={packages}", f"--include={','.join(recipe.packages)}",
        recipe.suite, str(tree), *([mirror] if mirror is not None else []),
    ]  # fmt: skip
    try:
        status, said = run(command, _BOOTSTRAP_SECONDS)
    except subprocess.TimeoutExpired as error:
        asked = mirror or "its mirror"
        raise BaseImageError(
            f"debootstrap took longer than {_BOOTSTRAP_SECONDS:.0f} s; is {asked} reachable?"
        ) from error
    if status != 0:
        raise BaseImageError(
            "debootstrap failed; name a Debian mirror that this machine reaches with --mirror. "
            f"It said:\n{end_of(said)}"
        )


def _finish(recipe: DebianRecipe, tree: Path) -> None:
    for command in recipe.commands:
        _inside(recipe, tree, command)
    _take_out(recipe, tree)
    for pattern in (*_LEFTOVERS, *recipe.emptied):
        for path in tree.glob(pattern):
            _empty(path)
    for file in recipe.files:
        target = tree / file.path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.content, encoding="utf-8")
        target.chmod(file.mode)
    for name, points_to in recipe.links:
        (tree / name.lstrip("/")).symlink_to(points_to)


def _inside(recipe: DebianRecipe, tree: Path, command: Sequence[str]) -> None:
    """Run a command with the tree as its root."""
    try:
        status, said = run(["chroot", str(tree), *command], _STEP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BaseImageError(f"{recipe.tag}: {command[0]} took longer than {_STEP_SECONDS:.0f} s") from error
    if status != 0:
        raise BaseImageError(f"{recipe.tag}: {' '.join(command)} failed in the file tree. It said:\n{end_of(said)}")


def _take_out(recipe: DebianRecipe, tree: Path) -> None:
    """Remove packages without their own scripts for it, which are made for living systems."""
    if not recipe.unneeded:
        return
    scripts = tree / "var/lib/dpkg/info"
    for package in recipe.unneeded:
        for kind in ("prerm", "postrm"):
            for script in (*scripts.glob(f"{package}.{kind}"), *scripts.glob(f"{package}:*.{kind}")):
                script.unlink()
    force = "--force-depends,remove-essential,remove-protected"
    _inside(recipe, tree, ["dpkg", "--purge", force, *recipe.unneeded])


def _empty(path: Path) -> None:
    """Remove a file or link; of a folder, its content."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _archive(recipe: DebianRecipe, tree: Path) -> Path:
    """The tree as a tar; devices are left out, the engine brings its own."""
    archive = tree.parent / "root.tar"
    command = ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(tree), "-cf", str(archive), "."]
    try:
        status, said = run(command, _STEP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BaseImageError(
            f"{recipe.tag}: packing took longer than {_STEP_SECONDS:.0f} s; how busy is this disk?"
        ) from error
    if status != 0:
        raise BaseImageError(f"{recipe.tag}: its file tree could not be packed; tar said:\n{end_of(said)}")
    return archive

"""The process runner's folders on disk: one per attempt, and the model content that runs share.

A run's folder is named by its attempt, so that whoever finds it knows whose it is, whatever its maker lived to write::

    scratch/runs/TASK@ATTEMPT@CONSUMER@TOKEN/    input/ output/ etc/ tmp/ and a link "model" to the content in use
    scratch/models/SHA256/                       unpacked content: there as a whole or not at all
"""

import secrets
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from contracts.tasks import AttemptRef
from service_kit.logging import get_logger

log = get_logger(__name__)

_SEPARATOR = "@"
_READABLE_FOLDER = 0o755
_REMOVAL_SECONDS = 120.0


class RunFolder:
    """The folders of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.input = path / "input"
        self.output = path / "output"
        self.etc = path / "etc"
        self.tmp = path / "tmp"
        self.no_model = path / "no_model"
        self.new_content = path / "new_content"
        self.model_link = path / "model"

    def make(self) -> None:
        """Create them all; other users may read (the sandbox's user is another), but not write."""
        for folder in (self.path, self.input, self.output, self.etc, self.tmp, self.no_model):
            folder.mkdir(parents=True)
            folder.chmod(_READABLE_FOLDER)

    def remove(self) -> bool:
        """Remove them, whatever modes and depths the model left; whether all is gone."""
        return remove_tree(self.path)


class Scratch:
    """All runs and model contents below one folder, which several consumers of a host may share."""

    def __init__(self, folder: Path) -> None:
        self._runs = folder.absolute() / "runs"
        self._models = folder.absolute() / "models"
        for made in (self._runs, self._models):
            made.mkdir(parents=True, exist_ok=True)

    def new_run(self, attempt: AttemptRef) -> RunFolder:
        """Make the folders of one attempt."""
        who = (str(attempt.task_id), str(attempt.attempt), quote(attempt.consumer, safe=""), secrets.token_hex(4))
        run = RunFolder(self._runs / _SEPARATOR.join(who))
        run.make()
        return run

    def runs(self) -> list[tuple[AttemptRef, RunFolder]]:
        """Every attempt that has a folder here, of any consumer."""
        found: list[tuple[AttemptRef, RunFolder]] = []
        for path in sorted(self._runs.iterdir()):
            attempt = _attempt_of(path.name)
            if attempt is not None:
                found.append((attempt, RunFolder(path)))
        return found

    def model(self, sha256: str) -> Path:
        """Where this content is, or would be."""
        return self._models / sha256

    def has_model(self, sha256: str) -> bool:
        """Whether the content is here; it never is in part."""
        return self.model(sha256).is_dir()

    def keep_model(self, unpacked: Path, sha256: str) -> None:
        """Move unpacked content, from inside a run's folder, to where runs share it; the first of several wins."""
        try:
            unpacked.rename(self.model(sha256))
        except OSError:
            if not self.has_model(sha256):
                raise
            remove_tree(unpacked)

    def forget_models(self, known_sha256: frozenset[str]) -> None:
        """Remove content that is neither known nor linked by a run."""
        used = {str(run.model_link.readlink()) for _, run in self.runs() if run.model_link.is_symlink()}
        for content in list(self._models.iterdir()):
            if content.name not in known_sha256 and str(content) not in used:
                with suppress(FileNotFoundError):  # another consumer was faster
                    # The name goes first: has_model must not see half of it. A rest of a removal is found here again.
                    remove_tree(content.rename(self._models / f".gone-{secrets.token_hex(4)}"))


def _attempt_of(name: str) -> AttemptRef | None:
    task_id, *rest = name.split(_SEPARATOR)
    if len(rest) != 3 or not task_id.isdecimal() or not rest[0].isdecimal():
        return None
    return AttemptRef(task_id=int(task_id), attempt=int(rest[0]), consumer=unquote(rest[1]))


def remove_tree(path: Path) -> bool:
    """Remove a folder that a hostile program may have filled; whether it is gone. Never raises.

    A program may leave folders without permissions, or nested deeper than Python recurses, and another consumer may
    remove the same ones at the same time: then coreutils do it.
    """
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        if path.exists():
            _remove_stubborn(path)
    if path.exists():
        log.warning("scratch_not_removed", path=str(path))
        return False
    return True


def _remove_stubborn(path: Path) -> None:
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        try:
            subprocess.run([*command, "--", str(path)], capture_output=True, timeout=_REMOVAL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("scratch_not_removed", path=str(path), why=str(error))

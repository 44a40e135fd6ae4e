"""What the user names, as the one zip that is posted: names, bytes and folders unchanged, empty folders included.

* one ``.zip`` file: sent as it is;
* one folder: a zip of its content;
* anything else: a zip of these files and folders, side by side under their own names.

A link inside a folder is stored as what it leads to, as long as that is inside the folder as well; one that leads out
is refused, for nobody who sends a folder means to send what is elsewhere.
"""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contracts.archives import ArchiveLimits
from inference_client.errors import InputRefused

_CHUNK_BYTES = 2**20
_QUICK = 1
DEEPEST = 200
"""Folders within folders; no honest input or output comes near, and walks of a tree take a stack frame for each."""
_PACKED_ALREADY = frozenset(
    {".7z", ".bz2", ".gif", ".gz", ".jpeg", ".jpg", ".mkv", ".mp3", ".mp4", ".npz", ".png", ".webp", ".xz", ".zip"}
)
_LIMITS = ArchiveLimits()
_SUSPICIOUS_RATIO = _LIMITS.max_ratio / 2
"""Above it a server may take an honest archive for a bomb (zeros compress a thousandfold): it is stored plain then."""


@contextmanager
def packed(inputs: Sequence[Path]) -> Iterator[Path]:
    """The zip that stands for these inputs; a temporary one is removed at the end.

    Raises
    ------
    InputRefused
        Nothing was named, something does not exist or cannot be read, two inputs have one name, a ``.zip`` is none, or
        a link leads out of its folder.
    """
    if len(inputs) == 1 and inputs[0].suffix.lower() == ".zip" and inputs[0].is_file():
        if not zipfile.is_zipfile(inputs[0]):
            raise InputRefused(f"{inputs[0]} is not a zip archive, in spite of its name.")
        yield inputs[0]
        return
    with tempfile.TemporaryDirectory(prefix="infer-") as folder:
        package = Path(folder) / "input.zip"
        try:
            pack(inputs, package)
        except OSError as error:
            raise InputRefused(f"The input cannot be packed: {error}.") from error
        yield package


def pack(inputs: Sequence[Path], package: Path) -> None:
    """Write the zip, streaming.

    Raises
    ------
    InputRefused
        As :func:`packed`.
    OSError
        Something cannot be read or written.
    """
    entries = list(_entries(inputs))
    unpacked = _write(entries, package, zipfile.ZIP_DEFLATED)
    if unpacked > _SUSPICIOUS_RATIO * package.stat().st_size:
        _write(entries, package, zipfile.ZIP_STORED)


def _entries(inputs: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each file and folder, with its name in the zip; a folder's name ends with a slash."""
    if not inputs:
        raise InputRefused("There is nothing to send; name a zip, a folder or files.")
    for path in inputs:
        if not path.exists():
            raise InputRefused(f"{path} does not exist.")
    if len(inputs) == 1 and inputs[0].is_dir():
        yield from _checked(_inside(inputs[0]))
        return
    yield from _checked(_side_by_side(inputs))


def _checked(entries: Iterator[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """Pass what a zip can hold, up to the platform's bound."""
    for count, (path, name) in enumerate(entries, start=1):
        if count > _LIMITS.max_entries:
            raise InputRefused(f"The input holds more than {_LIMITS.max_entries} files and folders; pack them first.")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputRefused(f"The file name {name!r} is not valid text; rename the file.") from error
        yield path, name


def _side_by_side(inputs: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    seen: dict[str, Path] = {}
    for path in inputs:
        name = path.name or path.resolve().name
        if name == "..":
            name = path.resolve().name
        if name in seen:
            raise InputRefused(f"{seen[name]} and {path} have the same name; put them into folders and send these.")
        seen[name] = path
        if path.is_dir():
            yield path, f"{name}/"
            yield from _inside(path, f"{name}/")
        else:
            yield _regular(path), name


def _inside(folder: Path, prefix: str = "") -> Iterator[tuple[Path, str]]:
    root = folder.resolve()
    yield from _below(folder, prefix, root, (root,))


def _below(folder: Path, prefix: str, root: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """The content of one folder, in the order of names; ``above`` are the real folders that the walk is in."""
    if len(above) > DEEPEST:
        raise InputRefused(f"The folders in {root} are nested more than {DEEPEST} deep; pack them first.")
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            _check_link(path, root, above)
        if path.is_dir():
            yield path, f"{prefix}{path.name}/"
            yield from _below(path, f"{prefix}{path.name}/", root, (*above, path.resolve()))
        else:
            yield _regular(path), f"{prefix}{path.name}"


def _check_link(path: Path, root: Path, above: tuple[Path, ...]) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InputRefused(f"The link {path} leads nowhere; remove it or put the file in its place.") from error
    if not target.is_relative_to(root):
        raise InputRefused(f"The link {path} leads out of the folder, to {target}; put the file in its place.")
    if target in above:
        raise InputRefused(f"The link {path} leads back to a folder that holds it; remove it.")


def _regular(path: Path) -> Path:
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputRefused(f"{path} is neither a file nor a folder (a device, pipe or socket); remove it.")
    return path


def _write(entries: Sequence[tuple[Path, str]], package: Path, method: int) -> int:
    """Write all entries; how many bytes they are unpacked."""
    unpacked = 0
    with zipfile.ZipFile(package, "w", method, compresslevel=_QUICK) as archive:
        for path, name in entries:
            if name.endswith("/"):
                archive.mkdir(name)
                continue
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            info.compress_type = zipfile.ZIP_STORED if path.suffix.lower() in _PACKED_ALREADY else method
            with path.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
            unpacked += path.stat().st_size
    return unpacked

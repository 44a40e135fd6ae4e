"""Whatever step of an installation a gateway dies at, or a full disk refuses: what is accepted is whole."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import StorageFull
from online_gateway.repository.repository import Repository
from tests.support.disk_steps import MOST_BYTES, FullDisk, before_each_step, install

CONTENTS = {label: label.encode() * 1000 for label in ("first", "second", "third")}


def accepted_label(folder: Path) -> str:
    """The label of what is accepted, whose content must be whole."""
    found = asyncio.run(Repository(folder, most_bytes=MOST_BYTES).current("vectors"))
    assert found is not None
    accepted, content = found
    assert content is not None
    assert content.read_bytes() == CONTENTS[accepted.label]
    return accepted.label


def leftovers(folder: Path) -> list[str]:
    """What a sweep should not leave: all but the newest two generations."""
    numbers = sorted(int(path.name) for path in (folder / "endpoints" / "vectors").iterdir() if path.is_dir())
    temporary = [path.name for path in folder.rglob("*.tmp")]
    staged = [path.name for path in (folder / "staging").iterdir()]
    half = [
        str(path) for path in (folder / "endpoints" / "vectors").glob("*/") if not (path / "generation.json").exists()
    ]
    return temporary + staged + half + [f"{len(numbers)} generations"] * (len(numbers) > 2)


def test_a_gateway_killed_at_any_step_leaves_the_one_before_or_the_new_one_whole(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.support.disk_steps", str(tmp_path)], check=True, timeout=120)

    labels = []
    for folder in sorted(tmp_path.iterdir()):
        label = accepted_label(folder / "data")
        labels.append(label)
        if (folder / "finished").exists():
            assert label == "third"

        repository = Repository(folder / "data", most_bytes=MOST_BYTES)
        asyncio.run(repository.sweep())

        assert accepted_label(folder / "data") == label
        assert leftovers(folder / "data") == []
        asyncio.run(install(repository, CONTENTS["first"], "first"))
        assert accepted_label(folder / "data") == "first"

    assert len(labels) > 20
    assert labels == sorted(labels)  # once it is named, nothing takes it back
    assert {labels[0], labels[-1]} == {"second", "third"}


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "until somebody makes room"])
def test_a_full_disk_at_any_step_is_told_and_leaves_nothing_behind(tmp_path: Path, *, for_good: bool) -> None:
    steps = ("write",) if for_good else ("open", "write", "fsync", "rename", "mkdir")

    for at in range(1, 100):
        folder = tmp_path / str(at)
        repository = Repository(folder, most_bytes=MOST_BYTES)
        asyncio.run(install(repository, CONTENTS["first"], "first"))
        full = FullDisk(at, for_good=for_good)
        is_installed = True
        with before_each_step(full, steps):
            try:
                asyncio.run(install(repository, CONTENTS["second"], "second"))
            except StorageFull:
                is_installed = False
        assert accepted_label(folder) == "second" or not is_installed
        assert leftovers(folder) == []
        if not full.was_met:
            break
        asyncio.run(install(repository, CONTENTS["third"], "third"))
        assert accepted_label(folder) == "third"
    else:
        pytest.fail("the installation does not end")
    assert at > 4

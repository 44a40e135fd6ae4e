"""Names and labels by which a later process finds what an attempt left."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.tasks import AttemptRef
from job_consumer.runner.docker.folders import AttemptFolders, remove_folder
from job_consumer.runner.docker.labels import Kind, attempt_labels, attempt_of, model_name, unique_name
from job_consumer.runner.scratch import remove_tree

ATTEMPTS = st.builds(
    AttemptRef,
    task_id=st.integers(min_value=0, max_value=2**63),
    attempt=st.integers(min_value=0, max_value=10**6),
    consumer=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
)


@given(attempt=ATTEMPTS)
def test_labels_tell_the_attempt_again(attempt: AttemptRef) -> None:
    assert attempt_of(attempt_labels("anywhere", Kind.RUN, attempt)) == attempt


@pytest.mark.parametrize(
    "foreign",
    [None, {}, {"inference-server.task": "1"}, {"inference-server.task": "x", "inference-server.attempt": "1"}],
)
def test_what_carries_no_whole_set_of_labels_belongs_to_no_attempt(foreign: dict[str, str] | None) -> None:
    assert attempt_of(foreign) is None


@given(attempt=ATTEMPTS)
def test_every_run_has_a_name_of_its_own_that_the_engine_takes(attempt: AttemptRef) -> None:
    first, second = unique_name(attempt), unique_name(attempt)

    assert first != second
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", first)
    assert f"-{attempt.task_id}-{attempt.attempt}-" in first


@given(installation=st.text(min_size=1))
def test_the_model_name_is_fixed_by_installation_and_content(installation: str) -> None:
    name = model_name(installation, "ab" * 32)

    assert name == model_name(installation, "ab" * 32)
    assert name != model_name(installation + "x", "ab" * 32)
    assert name.startswith("inference-server-model-" + "ab" * 16)


@given(attempt=ATTEMPTS.filter(lambda attempt: len(attempt.consumer.encode()) < 40))
def test_a_folder_tells_the_attempt_again(attempt: AttemptRef, tmp_path_factory: pytest.TempPathFactory) -> None:
    folders = AttemptFolders(tmp_path_factory.mktemp("scratch"), "some/../installation")

    made = folders.create(attempt)

    assert list(AttemptFolders(made.parents[1], "some/../installation").found()) == [(attempt, made)]
    assert made.stat().st_mode & 0o077 == 0


def test_two_installations_may_share_a_scratch_folder(tmp_path: Path) -> None:
    attempt = AttemptRef(task_id=1, attempt=1, consumer="c")
    AttemptFolders(tmp_path, "one").create(attempt)

    assert list(AttemptFolders(tmp_path, "two").found()) == []


def test_folders_that_are_not_ours_belong_to_no_attempt(tmp_path: Path) -> None:
    folders = AttemptFolders(tmp_path, "one")
    probe = folders.create_probe()
    (probe.parent / "lost+found").mkdir()
    (probe.parent / "1-x-abc-consumer").mkdir()

    assert list(folders.found()) == []


def test_a_folder_nested_deeper_than_python_recurses_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    innermost = os.open(deep, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("folder", dir_fd=innermost)
        outer, innermost = innermost, os.open("folder", os.O_RDONLY, dir_fd=innermost)
        os.close(outer)
    os.close(innermost)

    assert remove_folder(deep)

    assert not deep.exists()


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert remove_folder(tmp_path / "never-made")


@pytest.mark.parametrize("remove", [remove_folder, remove_tree])
def test_what_several_remove_at_once_is_gone_for_each_of_them(remove: Callable[[Path], bool], tmp_path: Path) -> None:
    crowded = tmp_path / "crowded"
    for number in range(2000):
        (crowded / str(number % 50)).mkdir(parents=True, exist_ok=True)
        (crowded / str(number % 50) / str(number)).touch()

    with ThreadPoolExecutor(4) as consumers:
        answers = list(consumers.map(remove, [crowded] * 4))

    assert answers == [True] * 4
    assert not crowded.exists()

"""The folder of accepted generations, when all goes well and when several use it."""

import asyncio
import hashlib
import os
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.errors import Conflict, Unavailable, UploadTooLarge
from online_gateway.durable_files import open_locked
from online_gateway.repository.repository import Accepted, Repository
from tests.support.disk_steps import before_each_step, install
from tests.support.gateway_core import until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path, most_bytes=1000)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_was_accepted_is_there_with_its_content_and_entry(repository: Repository) -> None:
    number = run(install(repository, b"weights", "a label"))

    accepted, content = run(repository.current("vectors"))

    assert (accepted.number, accepted.label, accepted.content_bytes) == (number, "a label", 7)
    assert content.read_bytes() == b"weights"
    assert run(repository.entries()) == {"vectors": {"LABEL": "a label"}}


def test_nothing_is_there_of_an_endpoint_that_nobody_installed(repository: Repository) -> None:
    assert run(repository.current("vectors")) is None
    assert run(repository.entries()) == {}


def test_the_newest_two_are_kept(repository: Repository, tmp_path: Path) -> None:
    for number in range(1, 6):
        assert run(install(repository, b"x" * number, "")) == number

    assert files(tmp_path / "endpoints") == [
        "vectors/4/content",
        "vectors/4/generation.json",
        "vectors/4/reserved",
        "vectors/5/content",
        "vectors/5/generation.json",
        "vectors/5/reserved",
        "vectors/current.json",
        "vectors/last_number",
    ]


def test_a_staged_file_is_gone_unless_it_was_installed(repository: Repository, tmp_path: Path) -> None:
    async def play() -> None:
        async with repository.staging() as staged:
            await staged.write(b"weights")
            assert staged.path.read_bytes() == b"weights"
            assert (staged.size, staged.sha256) == (7, hashlib.sha256(b"weights").hexdigest())

    run(play())

    assert files(tmp_path / "staging") == []


def test_an_upload_above_the_limit_is_refused(repository: Repository, tmp_path: Path) -> None:
    async def play() -> None:
        async with repository.staging() as staged:
            await staged.write(b"x" * 999)
            with pytest.raises(UploadTooLarge, match="1000 bytes"):
                await staged.write(b"xx")

    run(play())

    assert files(tmp_path / "staging") == []


def test_a_staged_file_is_installed_once(repository: Repository) -> None:
    async def play() -> None:
        async with repository.staging() as staged:
            await staged.write(b"x")
            reservation = await repository.reserve("vectors", staged)
            with pytest.raises(Conflict, match="installed before"):
                await repository.reserve("vectors", staged)
            await repository.discard(reservation)

    run(play())


def test_no_number_is_given_twice(repository: Repository) -> None:
    async def play() -> list[int]:
        numbers = []
        for _ in range(3):
            reservation = await repository.reserve("vectors", None, above=1)
            numbers.append(reservation.number)
            await repository.discard(reservation)
        return numbers

    assert run(play()) == [2, 3, 4]


def test_another_gateway_gives_out_other_numbers(repository: Repository, tmp_path: Path) -> None:
    run(install(repository, b"x", ""))
    other = Repository(tmp_path, most_bytes=1000)

    async def play() -> tuple[int, int]:
        here = await repository.reserve("vectors", None)
        there = await other.reserve("vectors", None)
        await repository.discard(here)
        again = await other.reserve("vectors", None)
        for reservation in (there, again):
            await other.discard(reservation)
        return here.number, there.number

    assert run(play()) == (2, 3)


def test_of_two_gateways_that_began_at_the_same_generation_the_first_to_accept_wins(
    repository: Repository, tmp_path: Path
) -> None:
    other = Repository(tmp_path, most_bytes=1000)

    async def play() -> None:
        slow = await repository.reserve("vectors", None)
        fast = await other.reserve("vectors", None)
        await other.accept(fast, _record(fast.number))
        with pytest.raises(Conflict, match="generation 2 is accepted there"):
            await repository.accept(slow, _record(slow.number))
        await repository.discard(slow)
        accepted, content = await repository.current("vectors") or pytest.fail("nothing is accepted")
        assert (accepted.number, content) == (2, None)

    run(play())


def test_the_sweep_removes_what_nobody_works_on_and_nothing_else(repository: Repository, tmp_path: Path) -> None:
    run(install(repository, b"x", ""))
    other = Repository(tmp_path, most_bytes=1000)
    (tmp_path / "staging" / "dead").write_bytes(b"x")
    (tmp_path / "endpoints" / "vectors" / "9").mkdir()
    (tmp_path / "endpoints" / "vectors" / "current.json.tmp").write_bytes(b"{")
    (tmp_path / "endpoints" / "never").mkdir()

    async def play() -> None:
        async with other.staging() as staged:
            await staged.write(b"alive")
            tried = await other.reserve("vectors", None)
            await repository.sweep()
            assert staged.path.exists()
            await other.accept(tried, _record(tried.number))

    run(play())

    assert files(tmp_path / "staging") == []
    folders = {path.name for path in (tmp_path / "endpoints" / "vectors").iterdir() if path.is_dir()}
    assert folders == {"1", "10"}
    assert not (tmp_path / "endpoints" / "never").exists()
    assert not (tmp_path / "endpoints" / "vectors" / "current.json.tmp").exists()


def test_a_removed_endpoint_leaves_nothing_and_its_numbers_are_not_given_out_again(
    repository: Repository, tmp_path: Path
) -> None:
    run(install(repository, b"x", ""))

    run(repository.remove("vectors"))

    assert files(tmp_path / "endpoints") == []
    assert run(repository.current("vectors")) is None
    assert run(install(repository, b"x", "")) == 2
    run(repository.remove("unheard of"))


def test_an_entry_is_replaced_without_touching_the_generation(repository: Repository) -> None:
    run(install(repository, b"x", "label"))

    run(repository.keep_entry("vectors", {"DESCRIPTION": "new"}))

    assert run(repository.entries()) == {"vectors": {"DESCRIPTION": "new"}}
    assert run(repository.current("vectors"))[0].label == "label"
    with pytest.raises(Conflict):
        run(repository.keep_entry("others", {}))


def test_a_next_generation_keeps_the_entry_unless_it_brings_another(repository: Repository) -> None:
    run(install(repository, b"x", "label"))

    async def play() -> None:
        reservation = await repository.reserve("vectors", None)
        await repository.accept(reservation, _record(reservation.number))

    run(play())

    assert run(repository.entries()) == {"vectors": {"LABEL": "label"}}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("current.json", b"{"),
        ("current.json", b'{"\xc1": 1}'),
        ("1/generation.json", b"[]"),
        ("1/generation.json", b'{"\xc1": 1}'),
        ("1/content", b"half"),
    ],
)
def test_spoilt_files_are_served_by_nobody_and_left_for_somebody_to_look_at(
    repository: Repository, tmp_path: Path, name: str, damage: bytes
) -> None:
    run(install(repository, b"weights", ""))
    spoilt = tmp_path / "endpoints" / "vectors" / name
    spoilt.write_bytes(damage)

    assert run(repository.current("vectors")) is None
    run(repository.sweep())

    assert spoilt.read_bytes() == damage
    assert run(install(repository, b"again", "")) == 2
    assert run(repository.current("vectors"))[0].number == 2


def test_a_stopped_gateway_that_holds_the_folder_makes_others_fail_with_a_sentence(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("online_gateway.durable_files._LOCK_TIME", timedelta(milliseconds=100))
    held = open_locked(tmp_path / "repository.lock")
    assert held is not None
    try:
        with pytest.raises(Unavailable, match="Another gateway holds"):
            run(repository.sweep())
    finally:
        os.close(held)

    run(repository.sweep())


def test_the_watch_tells_what_another_gateway_accepted_changed_or_removed(
    repository: Repository, tmp_path: Path
) -> None:
    other = Repository(tmp_path, most_bytes=1000)

    async def play() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        watching = asyncio.create_task(repository.watch(told.put, every_seconds=0.01))
        await install(other, b"x", "")
        assert await asyncio.wait_for(told.get(), 5) == "vectors"
        await other.keep_entry("vectors", {"DESCRIPTION": "longer"})
        assert await asyncio.wait_for(told.get(), 5) == "vectors"
        await other.remove("vectors")
        assert await asyncio.wait_for(told.get(), 5) == "vectors"
        watching.cancel()

    run(play())


def test_the_watch_outlives_a_folder_that_cannot_be_read_for_a_moment_and_files_that_do_not_belong_there(
    repository: Repository, tmp_path: Path
) -> None:
    async def play() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        (tmp_path / "endpoints" / "no-folder").write_text("")
        with capture_logs() as logs:
            (tmp_path / "endpoints").rename(tmp_path / "away")
            watching = asyncio.create_task(repository.watch(told.put, every_seconds=0.01))
            await until(lambda: any(line["event"] == "repository_not_read" for line in logs))
            (tmp_path / "away").rename(tmp_path / "endpoints")

        await install(Repository(tmp_path, most_bytes=1000), b"x", "")

        assert await asyncio.wait_for(told.get(), 5) == "vectors"
        watching.cancel()

    run(play())


def test_what_cannot_be_read_now_is_not_taken_for_removed(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "endpoints" / "vectors" / "current.json").mkdir(parents=True)

    for reading in (repository.entries(), repository.current("vectors")):
        with pytest.raises(Unavailable):
            run(reading)


def test_an_endpoint_that_takes_long_does_not_hold_up_what_is_told_of_others_and_is_told_of_again(
    repository: Repository,
) -> None:
    async def play() -> None:
        told: list[str] = []
        go_on = asyncio.Event()

        async def changed(endpoint: str) -> None:
            told.append(endpoint)
            if endpoint == "vectors":
                await go_on.wait()

        await install(repository, b"x", "")
        watching = asyncio.create_task(repository.watch(changed, every_seconds=0.01))
        await until(lambda: told == ["vectors"])
        reservation = await repository.reserve("others", None)
        await repository.accept(reservation, _record(reservation.number))
        await install(repository, b"y", "")
        await until(lambda: told == ["vectors", "others"])

        go_on.set()

        await until(lambda: told == ["vectors", "others", "vectors"])
        watching.cancel()

    run(play())


def test_everything_is_on_disk_before_it_is_named(repository: Repository, tmp_path: Path) -> None:
    descriptors: dict[int, str] = {}
    steps: list[str] = []
    real_open, real_fsync = os.open, os.fsync

    def watched_open(path: Any, *rest: Any, **named: Any) -> int:
        descriptor = real_open(path, *rest, **named)
        descriptors[descriptor] = str(path).removeprefix(str(tmp_path))
        return descriptor

    def watched_fsync(descriptor: int) -> None:
        steps.append(f"fsync {descriptors[descriptor]}")
        real_fsync(descriptor)

    def note(step: str, _: int) -> None:
        steps.append(step.replace(str(tmp_path), ""))

    with pytest.MonkeyPatch.context() as patch, before_each_step(note, ("rename",)):
        patch.setattr(os, "open", watched_open)
        patch.setattr(os, "fsync", watched_fsync)
        run(install(repository, b"weights", ""))

    named = steps.index("rename /endpoints/vectors/current.json.tmp")
    staged = next(step for step in steps if step.startswith("fsync /staging/"))
    assert steps.index(staged) < steps.index(staged.replace("fsync", "rename"))
    for path in (
        "/endpoints/vectors/1/generation.json.tmp",
        "/endpoints/vectors/1",
        "/endpoints/vectors",
        "/endpoints",
        "/endpoints/vectors/current.json.tmp",
    ):
        assert f"fsync {path}" in steps[:named]
    assert "fsync /endpoints/vectors" in steps[named:]


def _record(number: int) -> Accepted:
    return Accepted(number, "digest", "", "python", None, None)

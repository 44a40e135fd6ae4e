"""Swapping generations on workers that do what the test says, over real sockets and on a real disk."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.errors import Conflict, InvalidRequest, StorageFull
from contracts.inference import EndpointNotReady, SwapFailed, UnknownEndpoint
from contracts.worker_protocol import Leaving, Load, Notification
from online_gateway.durable_files import open_locked
from online_gateway.generations.generations import Recipe
from service_kit.deadline import Deadline
from tests.support.gateway_core import GatewayCore, in_an_event_loop, until


def refuses(number: int) -> Callable[[Load], str]:
    return lambda load: "the weights have the wrong shape" if load.generation == number else ""


def never_answers(number: int) -> Callable[[Load], str | None]:
    return lambda load: None if load.generation == number else ""


async def served(core: GatewayCore, number: int, name: str = "vectors") -> None:
    await until(lambda: core.generations.state(name).serving == number and core.generations.state(name).generations)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "endpoints").rglob("*") if path.is_file())


@in_an_event_loop
async def test_an_endpoint_without_a_file_serves_generation_1_from_the_first_worker_on(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        assert core.generations.state("vectors").serving is None

        worker = await core.worker()
        assert await core.generations.ready("vectors", Deadline(timedelta(seconds=10)))

        result = await core.call()
        state = core.generations.state("vectors")
        assert (result.generation, result.worker_version) == (1, "7.1")
        assert (state.accepted, state.generations, state.version) == (1, [1], "7.1")
        assert state.inputs[0].name == "x"
        assert state.holders == {"w-1": 1}
        assert result.document == {"digest": worker.loads[0].digest}
        assert files(tmp_path) == []


@in_an_event_loop
async def test_an_endpoint_that_needs_a_file_serves_nothing_before_one_was_installed(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open(needs_content=True)
        worker = await core.worker()

        assert not await core.generations.ready("vectors", Deadline(timedelta(milliseconds=50)))
        assert worker.loads == []
        with pytest.raises(EndpointNotReady, match="Nothing is installed"):
            await core.generations.load("vectors")

        report = await core.install(b"weights", label="first")

        assert (report.accepted, report.generation) == (True, 1)
        assert (await core.call()).label == "first"


@in_an_event_loop
async def test_the_file_of_the_configuration_is_the_first_generation(tmp_path: Path) -> None:
    content = tmp_path / "model.onnx"
    content.write_bytes(b"a model")

    async with GatewayCore(tmp_path) as core:
        await core.open(content=content)
        worker = await core.worker()
        await served(core, 1)

        assert worker.contents == {("vectors", 1): hashlib.sha256(b"a model").hexdigest()}
        with pytest.raises(InvalidRequest, match="CONTENT of 'others'"):
            await core.open("others", content=tmp_path / "missing.onnx")


@in_an_event_loop
async def test_a_swap_reaches_every_worker_and_the_one_before_is_unloaded_everywhere(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 17)

    async with GatewayCore(tmp_path) as core:
        await core.open()
        workers = [await core.worker(f"w-{number}") for number in range(3)]
        await until(lambda: all(worker.generations() == [1] for worker in workers))

        report = await core.install(content, label="good.b64")

        assert report.accepted
        assert [(one.worker_id, one.ok) for one in report.workers] == [("w-0", True), ("w-1", True), ("w-2", True)]
        await until(lambda: all(worker.generations() == [2] for worker in workers))
        for worker in workers:
            assert worker.contents[("vectors", 2)] == hashlib.sha256(content).hexdigest()
        assert (await core.call()).generation == 2
        assert core.generations.state("vectors").generations == [2]
        with pytest.raises(UnknownEndpoint):
            await core.call(generation=1)


@in_an_event_loop
async def test_one_refusal_leaves_the_one_before_serving_and_tells_what_each_worker_met(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        good = await core.worker("good")
        bad = await core.worker("bad", verdict=refuses(2))
        await until(lambda: good.generations() == bad.generations() == [1])

        with pytest.raises(SwapFailed) as failed:
            await core.install(b"broken")

        report = failed.value.report
        assert not report.accepted
        assert [(one.worker_id, one.ok) for one in report.workers] == [("good", True), ("bad", False)]
        assert report.workers[1].message == "the weights have the wrong shape"
        assert report.workers[1].trace.startswith("Traceback")
        assert "1 of 2 workers" in report.message
        await until(lambda: good.generations() == bad.generations() == [1])
        assert (await core.call()).generation == 1
        with pytest.raises(UnknownEndpoint):
            await core.call(generation=2)
        assert files(tmp_path) == []
        assert (await core.install(b"better")).generation == 3


@in_an_event_loop
async def test_the_candidate_answers_no_call_before_it_is_accepted(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        quick = await core.worker("quick")
        slow = await core.worker("slow", verdict=never_answers(2))
        await until(lambda: quick.generations() == slow.generations() == [1])
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: quick.generations() == [1, 2] and len(slow.loads) == 2)

        assert (await core.call()).generation == 1
        with pytest.raises(UnknownEndpoint):
            await core.call(generation=2)

        slow.verdict = refuses(0)
        slow.answer(slow.loads[-1])
        assert (await installing).accepted
        assert (await core.call()).generation == 2


@in_an_event_loop
async def test_a_worker_that_does_not_answer_in_time_fails_the_swap(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path, swap_seconds=0.5) as core:
        await core.open()
        worker = await core.worker(verdict=never_answers(2))
        await served(core, 1)

        with pytest.raises(SwapFailed, match=r"within 0\.5 s|has not loaded it"):
            await core.install(b"slow")

        assert (await core.call()).generation == 1
        assert worker.generations() == [1]


@pytest.mark.parametrize("ending", ["dies", "leaves"])
@in_an_event_loop
async def test_a_worker_that_goes_before_its_answer_fails_the_swap_only_if_it_was_lost(
    tmp_path: Path, ending: str
) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        stays = await core.worker("stays")
        goes = await core.worker("goes", verdict=never_answers(2))
        await until(lambda: stays.generations() == goes.generations() == [1])
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: len(goes.loads) == 2)

        if ending == "dies":
            goes.die()
            with pytest.raises(SwapFailed, match="lost before it had loaded"):
                await installing
            assert (await core.call()).generation == 1
        else:
            goes.leave()
            report = await installing
            assert [one.worker_id for one in report.workers] == ["stays"]
            assert (await core.call()).generation == 2


@in_an_event_loop
async def test_nothing_is_accepted_when_all_who_acknowledged_are_gone(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open(needs_content=True)
        first = await core.worker("first")
        second = await core.worker("second", verdict=never_answers(1))
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: first.generations() == [1] and second.loads)
        first.die()
        await until(lambda: len(core.pools.members("vectors")) == 1)

        second.send(Leaving())

        with pytest.raises(SwapFailed):
            await installing
        assert core.generations.state("vectors").accepted is None
        assert files(tmp_path) == []


@in_an_event_loop
async def test_a_worker_that_joins_during_a_swap_gets_both_and_its_failure_fails_the_swap(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        slow = await core.worker("slow", verdict=never_answers(2))
        await served(core, 1)
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: len(slow.loads) == 2)

        joiner = await core.worker("joiner", verdict=refuses(2))
        await until(lambda: len(joiner.loads) == 2)
        assert sorted(load.generation for load in joiner.loads) == [1, 2]
        slow.verdict = refuses(0)
        slow.answer(slow.loads[-1])

        with pytest.raises(SwapFailed) as failed:
            await installing
        assert {one.worker_id: one.ok for one in failed.value.report.workers} == {"slow": True, "joiner": False}
        await until(lambda: joiner.generations() == slow.generations() == [1])


@in_an_event_loop
async def test_a_worker_that_joins_during_a_swap_serves_the_new_one_after_it(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        slow = await core.worker("slow", verdict=never_answers(2))
        await served(core, 1)
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: len(slow.loads) == 2)
        joiner = await core.worker("joiner")
        await until(lambda: joiner.generations() == [1, 2])
        slow.verdict = refuses(0)
        slow.answer(slow.loads[-1])

        report = await installing

        assert {one.worker_id for one in report.workers} == {"slow", "joiner"}
        assert core.generations.state("vectors").holders == {"slow": 2, "joiner": 2}
        await until(lambda: joiner.generations() == slow.generations() == [2])


@in_an_event_loop
async def test_a_late_worker_gets_the_current_generation_with_its_content(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        await core.worker("early")
        await core.install(b"the weights")

        late = await core.worker("late")

        await until(lambda: late.generations() == [2])
        assert late.contents[("vectors", 2)] == hashlib.sha256(b"the weights").hexdigest()
        assert [load.generation for load in late.loads] == [2]


@in_an_event_loop
async def test_a_worker_that_cannot_load_the_current_one_is_reported_not_fed_and_tried_again(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        good = await core.worker("good")
        await core.install(b"the weights")
        bad = await core.worker("bad", verdict=lambda _: "no memory left")
        await until(
            lambda: "The worker bad cannot load generation 2: no memory" in core.generations.state("vectors").reason
        )

        answers = {(await core.call()).worker_id for _ in range(20)}
        assert answers == {"good"}
        bad.verdict = lambda _: ""

        await until(lambda: bad.generations() == [2])
        assert core.generations.state("vectors").reason == ""
        assert core.generations.state("vectors").holders == {"good": 2, "bad": 2}
        assert good.generations() == [2]


@in_an_event_loop
async def test_a_load_that_timed_out_is_tried_again_from_its_beginning(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path, swap_seconds=0.5) as core:
        await core.open(content=_file(tmp_path, b"weights"))
        worker = await core.worker(verdict=lambda _: None)
        await until(lambda: core.generations.state("vectors").reason)

        worker.verdict = lambda _: ""

        await until(lambda: worker.generations() == [1])
        assert len(worker.loads) > 1


@in_an_event_loop
async def test_a_late_acknowledgement_of_the_one_before_brings_it_not_back(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker(verdict=never_answers(1))
        await until(lambda: worker.loads)
        late = worker.loads[0]
        await core.install(b"next")
        worker.verdict = lambda _: ""

        worker.answer(late)
        worker.send(Notification("vectors", "marker", "everything before this has arrived", 0.0))

        await until(core.notifications.take)
        assert (await core.call()).generation == 2
        assert core.generations.state("vectors").generations == [2]


@in_an_event_loop
async def test_a_worker_that_joins_while_the_new_one_is_being_accepted_gets_it_too(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        first = await core.worker("first", verdict=never_answers(2))
        await served(core, 1)
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: first.held)
        lock = open_locked(tmp_path / "repository.lock")  # the acceptance waits for it
        assert lock is not None
        first.verdict = lambda _: ""
        first.answer_held()
        await until(lambda: core.generations._endpoints["vectors"]._swap is None)
        joiner = await core.worker("joiner")
        await until(lambda: joiner.generations() == [1])

        os.close(lock)

        assert [one.worker_id for one in (await installing).workers] == ["first"]
        await until(lambda: joiner.generations() == first.generations() == [2])
        assert core.generations.state("vectors").holders == {"first": 2, "joiner": 2}


@in_an_event_loop
async def test_without_a_worker_nothing_is_installed(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()

        with pytest.raises(EndpointNotReady, match="No worker of 'vectors'"):
            await core.install(b"weights")
        with pytest.raises(UnknownEndpoint):
            await core.install(b"weights", "others")

        assert files(tmp_path) == []
        assert list((tmp_path / "staging").iterdir()) == []


@in_an_event_loop
async def test_swaps_of_one_endpoint_are_one_after_the_other_and_those_of_two_side_by_side(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open("a", "shared")
        await core.open("b", "shared")
        worker = await core.worker(pool="shared", verdict=lambda load: None if load.generation > 1 else "")
        await until(lambda: worker.generations("a") == worker.generations("b") == [1])

        installing = [asyncio.create_task(core.install(b"x", name)) for name in ("a", "a", "b")]
        await until(lambda: len(worker.loads) == 4)
        on_the_way = {load.endpoint: load for load in worker.loads[2:]}
        worker.verdict = lambda _: ""
        worker.answer(on_the_way["b"])
        assert (await installing[2]).generation == 2
        assert {(load.endpoint, load.generation) for load in worker.loads[2:]} == {("a", 2), ("b", 2)}

        worker.answer(on_the_way["a"])

        assert {(await one).generation for one in installing[:2]} == {2, 3}


@in_an_event_loop
async def test_after_a_restart_the_accepted_generation_is_served_as_soon_as_one_worker_has_it(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        await core.worker()
        await core.install(b"one", label="one.b64")
        report = await core.install(b"two", label="two.b64")
        before = (await core.call()).document

    async with GatewayCore(tmp_path) as core:
        await core.open()
        await core.worker("blocked", verdict=lambda _: None)
        worker = await core.worker("again")

        await served(core, report.generation)
        result = await core.call()
        assert (result.generation, result.label, result.worker_id) == (report.generation, "two.b64", "again")
        assert result.document == before
        assert worker.contents[("vectors", report.generation)] == hashlib.sha256(b"two").hexdigest()


@in_an_event_loop
async def test_the_digest_changes_with_content_configuration_and_module(tmp_path: Path) -> None:
    module = _file(tmp_path, b"class A: ...")

    async with GatewayCore(tmp_path) as core:
        await core.open(module=module)
        worker = await core.worker()
        await served(core, 1)
        for content, entry in ((b"a", {}), (b"b", {}), (b"b", {"K": 1}), (b"b", {})):
            await core.open(module=module, config={"entry": entry})
            await core.install(content)
        module.write_bytes(b"class B: ...")
        await core.install(b"b")

        digests = [load.digest for load in worker.loads]
        assert len(set(digests)) == 5
        assert digests[2] == digests[4]


@in_an_event_loop
async def test_unload_stops_serving_and_load_serves_again(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker()
        await core.install(b"weights")

        await core.generations.unload("vectors")

        assert core.generations.state("vectors").is_unloaded
        await until(lambda: worker.generations() == [])
        with pytest.raises(EndpointNotReady):
            await core.call()
        late = await core.worker("late")
        assert late.loads == []

        await core.generations.load("vectors")

        assert (await core.call()).generation == 2
        assert worker.generations() == late.generations() == [2]
        await core.generations.load("vectors")


@in_an_event_loop
async def test_load_says_why_no_worker_serves_it(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker()
        await served(core, 1)
        await core.generations.unload("vectors")
        worker.verdict = lambda _: "the disk of this host is full"

        with pytest.raises(SwapFailed, match="disk of this host"):
            await core.generations.load("vectors")

        worker.die()
        await until(lambda: not core.pools.members("vectors"))
        with pytest.raises(EndpointNotReady, match="waits for one"):
            await core.generations.load("vectors")
        await core.worker("next")
        await served(core, 1)


@in_an_event_loop
async def test_a_closed_endpoint_is_unloaded_everywhere_and_may_be_opened_again(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker(verdict=never_answers(2))
        await served(core, 1)
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: len(worker.loads) == 2)

        await core.generations.close("vectors")

        with pytest.raises(SwapFailed, match="closed meanwhile"):
            await installing
        await until(lambda: worker.generations() == [])
        with pytest.raises(UnknownEndpoint):
            core.generations.state("vectors")
        await core.open()
        await served(core, 1)


@in_an_event_loop
async def test_an_install_comes_to_its_end_although_its_caller_went_away(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker(verdict=never_answers(2))
        await served(core, 1)
        installing = asyncio.create_task(core.install(b"next"))
        await until(lambda: ("vectors", 2) in worker.contents)

        installing.cancel()
        worker.verdict = lambda _: ""
        worker.answer(worker.loads[-1])

        await served(core, 2)
        assert worker.contents[("vectors", 2)] == hashlib.sha256(b"next").hexdigest()


@in_an_event_loop
async def test_a_full_disk_at_the_acceptance_leaves_the_one_before_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker()
        await served(core, 1)
        await core.install(b"good")
        kept = files(tmp_path)
        worker.verdict = lambda _: monkeypatch.setattr(os, "write", full) or ""

        with pytest.raises(StorageFull):
            await core.install(b"next")
        monkeypatch.undo()

        assert (await core.call()).generation == 2
        await until(lambda: worker.generations() == [2])
        assert [name for name in files(tmp_path) if "last_number" not in name] == [
            name for name in kept if "last_number" not in name
        ]
        worker.verdict = lambda _: ""
        assert (await core.install(b"after")).accepted


@in_an_event_loop
async def test_another_gateway_on_the_folder_follows_within_a_second(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as first, GatewayCore(tmp_path, socket="second.sock") as second:
        for core in (first, second):
            await core.open()
        watching = asyncio.create_task(second.repository.watch(second.generations.follow))
        await first.worker("a")
        here = await second.worker("b")
        await served(second, 1)

        report = await first.install(b"new", label="new")
        await until(lambda: second.generations.state("vectors").serving == report.generation, within=3)

        assert (await second.call()).label == "new"
        await until(lambda: here.generations() == [report.generation])
        watching.cancel()


@in_an_event_loop
async def test_what_another_gateway_accepts_while_one_follows_it_is_followed_too(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as first, GatewayCore(tmp_path, socket="second.sock") as second:
        for core in (first, second):
            await core.open()
        await first.worker("a")
        slow = await second.worker("b", verdict=never_answers(2))
        await served(second, 1)
        await first.install(b"new")
        await second.generations.follow("vectors")
        await until(lambda: len(slow.loads) == 2)
        newest = await first.install(b"newer")

        await second.generations.follow("vectors")
        slow.verdict = lambda _: ""
        slow.answer_held()

        await served(second, newest.generation)


@in_an_event_loop
async def test_the_slower_of_two_gateways_is_told_that_another_was_faster(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as first, GatewayCore(tmp_path, socket="second.sock") as second:
        for core in (first, second):
            await core.open()
        await first.worker("a")
        slow = await second.worker("b", verdict=lambda load: None if load.generation > 1 else "")
        await served(second, 1)
        installing = asyncio.create_task(second.install(b"slow"))
        await until(lambda: len(slow.loads) == 2)
        accepted = await first.install(b"fast")
        slow.verdict = lambda _: ""

        slow.answer(slow.loads[-1])

        with pytest.raises(Conflict, match="Another gateway"):
            await installing
        assert slow.loads[-1].generation != accepted.generation
        assert (await second.call()).generation == 1
        await second.generations.follow("vectors")
        await served(second, accepted.generation)


@in_an_event_loop
async def test_no_more_than_a_few_pieces_of_a_content_are_in_memory(tmp_path: Path) -> None:
    size = 48 * 2**20

    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker()
        await served(core, 1)
        tracemalloc.start()
        try:
            async with core.repository.staging() as staged:
                for _ in range(size // 2**20):
                    await staged.write(bytes(2**20))
                await core.generations.install("vectors", staged)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert worker.generations()[-1] == 2
        assert peak < 16 * 2**20


@in_an_event_loop
async def test_a_hundred_swaps_leave_two_generations_on_disk_and_one_in_each_worker(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        workers = [await core.worker(f"w-{number}") for number in range(2)]
        await served(core, 1)
        for number in range(100):
            await core.install(f"weights {number}".encode())
        await until(lambda: all(worker.generations() == [101] for worker in workers))
        await until(
            lambda: (
                {path.name for path in (tmp_path / "endpoints" / "vectors").iterdir() if path.is_dir()}
                == {"100", "101"}
            )
        )

        endpoint = core.generations._endpoints["vectors"]
        assert list(endpoint.held) == [101]
        assert core.generations._loader._attempts == {}
        assert list(core.data_plane._endpoints["vectors"].generations) == [101]


@in_an_event_loop
async def test_a_worker_loads_many_endpoints_two_at_a_time(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        for number in range(10):
            await core.open(f"e-{number}", "shared")
        worker = await core.worker(pool="shared", verdict=lambda _: None)
        await until(lambda: len(worker.loads) == 2)

        worker.verdict = lambda _: ""
        for load in worker.loads[:2]:
            worker.answer(load)

        await until(lambda: len(worker.memory) == 10)


@in_an_event_loop
async def test_another_recipe_counts_for_the_next_generation(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker()
        await served(core, 1)

        await core.generations.open(Recipe("vectors", "vectors", "python", {"entry": {"K": 2}}))
        await core.install(None)

        assert [load.config for load in worker.loads] == [{"entry": {}}, {"entry": {"K": 2}}]


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "a-file"
    path.write_bytes(data)
    return path


@in_an_event_loop
async def test_a_worker_that_has_lost_what_it_had_acknowledged_loads_it_again(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        await core.open()
        worker = await core.worker(admits_losses=True)
        await served(core, 1)
        worker.memory.clear()

        result = await core.call()

        assert result.generation == 1
        assert len(worker.loads) == 2
        assert core.generations.state("vectors").holders == {"w-1": 1}

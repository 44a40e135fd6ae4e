"""Wake-ups and presence, without a network or a database."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from contracts.queue import QUEUE_CPU, QUEUE_GPU
from contracts.task_state import TaskState
from contracts.tasks import ConsumerPresence
from private_api.services.presence import Presence
from private_api.services.wakeups import Wakeups


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_the_end_of_a_task_wakes_all_who_wait_for_it_and_nobody_else() -> None:
    async def scenario() -> None:
        wakeups = Wakeups(lambda: None)
        with wakeups.end_of("a") as first, wakeups.end_of("a") as second, wakeups.end_of("b") as other:
            wakeups.moved("a", QUEUE_CPU, TaskState.RUNNING)
            assert not first.is_set()

            wakeups.moved("a", QUEUE_CPU, TaskState.FAILED)

            assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
        assert wakeups._ends == {}

    run(scenario())


def test_a_pending_task_wakes_one_consumer_of_its_queue_and_the_publisher() -> None:
    async def scenario() -> None:
        told: list[bool] = []
        wakeups = Wakeups(lambda: told.append(True))
        with (
            wakeups.next_of([QUEUE_CPU]) as cpu,
            wakeups.next_of([QUEUE_GPU, QUEUE_CPU]) as gpu,
            wakeups.next_of([QUEUE_GPU]) as later,
        ):
            wakeups.moved("a", QUEUE_GPU, TaskState.PENDING)
            assert (cpu.is_set(), gpu.is_set(), later.is_set()) == (False, True, False)

            wakeups.moved("b", QUEUE_GPU, TaskState.PENDING)
            assert (cpu.is_set(), later.is_set()) == (False, True)
        assert told == [True, True]
        assert not wakeups._idle

    run(scenario())


def test_closing_ends_all_waits_now_and_later() -> None:
    async def scenario() -> None:
        wakeups = Wakeups(lambda: None)
        with wakeups.end_of("a") as end, wakeups.next_of([QUEUE_CPU]) as task:
            wakeups.close()
            assert end.is_set()
            assert task.is_set()
        with wakeups.end_of("a") as later:
            assert later.is_set()

    run(scenario())


def test_a_silent_consumer_is_forgotten_and_a_young_process_forgets_nobody() -> None:
    now = [100.0]
    presence = Presence(clock=lambda: now[0])
    gpu = ConsumerPresence(host="h", has_gpu=True, runner="docker")
    cpu = gpu.model_copy(update={"has_gpu": False})
    assert presence.may_live("unheard of")

    now[0] = 131
    presence.report("gpu", gpu)
    presence.report("cpu", cpu)
    assert not presence.may_live("unheard of")
    assert presence.may_live("gpu")
    assert presence.who_could_run(QUEUE_GPU) == {"gpu"}
    assert presence.who_could_run(QUEUE_CPU) == {"gpu", "cpu"}

    now[0] = 150
    presence.report("cpu", cpu)
    now[0] = 162
    assert not presence.may_live("gpu")
    assert set(presence.living()) == {"cpu"}

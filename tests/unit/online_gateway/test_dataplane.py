import asyncio
import gc
from datetime import timedelta

import pytest

from contracts.inference import (
    DeadlineExceeded,
    InferCall,
    InferResult,
    InvalidInput,
    ModelFailed,
    QueueFull,
    UnknownEndpoint,
)
from contracts.worker_protocol import Result
from online_gateway.dataplane.lanes import HeldGeneration
from service_kit.deadline import Deadline
from tests.support.data_plane import FAST, Scene, numbers, scene
from tests.support.held_link import HeldLink

__all__ = ["scene"]


def test_an_answer_names_its_generation_and_its_worker(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    (task,) = scene.ask(1)

    scene.do(worker.answer)

    assert task.result() == InferResult(1, "label 1", "worker", "1.0", {"n": 1}, None, 0.01)


def test_a_name_that_was_not_opened_is_unknown(scene: Scene) -> None:
    (task,) = scene.ask(1, name="other")

    assert isinstance(task.exception(), UnknownEndpoint)
    with pytest.raises(UnknownEndpoint):
        scene.count("other")


def test_what_a_worker_fails_reaches_the_caller_with_its_trace(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()

    (refused,) = scene.ask(1)
    scene.do(lambda: worker.fail("invalid_input"))
    (broken,) = scene.ask(2)
    scene.do(lambda: worker.fail("model_failed"))

    for task, kind in ((refused, InvalidInput), (broken, ModelFailed)):
        error = task.exception()
        assert isinstance(error, kind)
        assert error.trace == "trace"


def test_answers_to_unknown_calls_and_second_answers_are_ignored(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    first, second = scene.ask(1, 2)
    answered = next(iter(worker.calls))

    scene.do(lambda: scene.plane.on_results(worker, [Result(10**6, "unknown", None, 0.0)]))
    scene.do(worker.answer)
    scene.do(lambda: scene.plane.on_results(worker, [Result(answered, "again", None, 0.0)]))
    scene.do(lambda: scene.plane.on_results(HeldLink(scene.plane), [Result(answered, "stranger", None, 0.0)]))

    assert first.result().document == {"n": 1}
    assert not second.done()
    assert numbers(worker) == [2]


def test_a_full_queue_refuses_and_says_when_to_come_again(scene: Scene) -> None:
    scene.open(queue_limit=20)
    worker = scene.worker()
    scene.ask(*range(21))
    for _ in range(10):
        scene.loop.pass_time(0.5)
        scene.do(worker.answer)
        scene.ask(1)

    (refused,) = scene.ask(99)

    error = refused.exception()
    assert isinstance(error, QueueFull)
    assert 8 <= error.retry_after <= 14
    assert scene.count().refused == 1
    assert (scene.count().queue_now, scene.count().queue_max) == (20, 20)


def test_calls_of_one_tick_that_find_idle_workers_are_not_refused(scene: Scene) -> None:
    scene.open(queue_limit=1)
    workers = [scene.worker(worker_id=name) for name in "abc"]

    tasks = scene.ask(1, 2, 3, 4, 5)

    assert sorted(number for worker in workers for number in numbers(worker)) == [1, 2, 3]
    assert [task.done() for task in tasks] == [False, False, False, False, True]
    assert isinstance(tasks[-1].exception(), QueueFull)


def test_a_call_ends_with_its_deadline_in_the_queue_and_at_the_worker(scene: Scene) -> None:
    scene.open(deadline_seconds=1.0)
    worker = scene.worker()
    begun, waiting = scene.ask(1, 2)
    begun_id = next(iter(worker.calls))

    scene.loop.pass_time(1.06)

    for task, where in ((begun, "with the worker"), (waiting, "in the queue")):
        error = task.exception()
        assert isinstance(error, DeadlineExceeded)
        assert where in error.message
    assert worker.cancelled == [begun_id]
    assert scene.count().failed == 2


def test_the_budget_of_a_call_shortens_its_deadline_and_never_lengthens_it(scene: Scene) -> None:
    scene.open(deadline_seconds=1.0)
    scene.worker()
    (short,) = scene.ask(1, budget_seconds=0.2)
    (long,) = scene.ask(2, budget_seconds=100.0)
    (nonsense,) = scene.ask(3, budget_seconds=float("nan"))

    scene.loop.pass_time(0.26)
    assert isinstance(short.exception(), DeadlineExceeded)
    assert not long.done()

    scene.loop.pass_time(0.8)
    assert isinstance(long.exception(), DeadlineExceeded)
    assert isinstance(nonsense.exception(), DeadlineExceeded)


def test_a_worker_whose_callers_wait_for_less_than_its_calls_may_take_is_not_overdue(scene: Scene) -> None:
    scene.open(deadline_seconds=10.0)
    worker = scene.worker()
    (impatient,) = scene.ask(1, budget_seconds=0.1)
    (waited,) = scene.ask(2)

    scene.loop.pass_time(9.0)
    assert isinstance(impatient.exception(), DeadlineExceeded)
    assert scene.plane.overdue(worker) == 0.0
    scene.do(worker.answer)
    scene.loop.pass_time(2.0)
    assert isinstance(waited.exception(), DeadlineExceeded)
    assert scene.plane.overdue(worker) == 0.0
    scene.loop.pass_time(10.0)

    assert scene.plane.overdue(worker) == pytest.approx(2.0)


def test_a_worker_that_lets_deadlines_pass_is_overdue_until_it_answers_something(scene: Scene) -> None:
    scene.open(deadline_seconds=1.0)
    worker = scene.worker()
    scene.ask(1)

    scene.loop.pass_time(0.9)
    assert scene.plane.overdue(worker) == 0.0
    scene.loop.pass_time(3.1)
    assert scene.plane.overdue(worker) == pytest.approx(3.0)

    scene.do(worker.answer)
    assert scene.plane.overdue(worker) == 0.0
    assert scene.plane.overdue(HeldLink(scene.plane)) == 0.0


def test_a_client_that_goes_away_takes_its_waiting_call_along(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    begun, waiting = scene.ask(1, 2)

    scene.do(waiting.cancel)
    scene.do(worker.answer)

    assert waiting.cancelled()
    assert begun.done()
    assert not worker.calls
    assert (scene.count().cancelled, scene.count().queue_now) == (1, 0)


def test_a_worker_is_told_of_all_that_nobody_waits_for_in_one_message(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.learn(worker, FAST)
    tasks = scene.ask(1, 2, 3)
    messages: list[object] = []
    worker.on_send = messages.append

    scene.do(lambda: [task.cancel() for task in tasks])

    assert len(messages) == 1
    assert worker.cancelled == list(worker.calls)


def test_a_call_cancelled_in_the_tick_of_its_turn_is_not_sent(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    begun, waiting = scene.ask(1, 2)

    def answer_and_cancel() -> None:
        worker.answer()
        waiting.cancel()

    scene.do(answer_and_cancel)

    assert begun.done()
    assert waiting.cancelled()
    assert not worker.calls
    assert (scene.count().cancelled, scene.count().queue_now) == (1, 0)


def test_only_calls_that_take_long_are_watched_for_their_clients(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    watched: list[int] = []

    async def gone() -> None:
        watched.append(1)
        await asyncio.sleep(0.5)

    (quick,) = scene.ask(1, gone=gone)
    scene.loop.pass_time(0.04)
    scene.do(worker.answer)
    assert quick.done()
    assert not watched

    (begun,) = scene.ask(2, gone=gone)
    (waiting,) = scene.ask(3, gone=gone)
    scene.loop.pass_time(0.2)
    assert len(watched) == 2
    scene.loop.pass_time(0.6)

    assert begun.cancelled()
    assert waiting.cancelled()
    assert worker.cancelled == list(worker.calls)


def test_the_watch_ends_with_the_call(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    ended: list[str] = []

    async def gone() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("watch")

    (task,) = scene.ask(1, gone=gone)
    scene.loop.pass_time(0.2)

    scene.do(worker.answer)

    assert task.result().document == {"n": 1}
    assert ended == ["watch"]


def test_a_slow_worker_gets_nothing_new_until_it_is_done_with_what_nobody_waits_for(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    first, _ = scene.ask(1, 2)

    scene.do(first.cancel)
    assert numbers(worker) == [1]
    scene.do(worker.answer)

    assert numbers(worker) == [2]


def test_a_worker_that_has_skipped_a_cancelled_call_is_used_again(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    first, second = scene.ask(1, 2)
    scene.do(first.cancel)

    scene.do(lambda: worker.fail("cancelled"))
    assert numbers(worker) == [2]
    scene.do(worker.answer)

    assert second.result().document == {"n": 2}


def test_a_worker_that_hangs_is_given_no_other_call_while_another_serves(scene: Scene) -> None:
    scene.open(deadline_seconds=1.0)
    hung = scene.worker(worker_id="hung")
    (lost,) = scene.ask(1)
    other = scene.worker(worker_id="other")

    for number in range(2, 30):
        scene.loop.pass_time(0.2)
        (asked,) = scene.ask(number)
        scene.do(other.answer)
        assert asked.result().worker_id == "other"

    assert isinstance(lost.exception(), DeadlineExceeded)
    assert numbers(hung) == [1]


def test_an_input_that_cannot_be_framed_fails_alone(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.learn(worker, FAST)
    documents: list[dict[str, object]] = [{"n": number} for number in range(7)]
    documents[3]["n"] = 2**70
    documents[5]["text"] = "\ud800"

    tasks = [scene.loop.create_task(scene.plane.infer(InferCall("sum", document))) for document in documents]
    scene.do()
    scene.do(worker.answer)

    assert [isinstance(task.exception(), InvalidInput) for task in tasks] == [n in (3, 5) for n in range(7)]
    scene.ask(8)
    assert numbers(worker) == [8]


def test_a_closed_endpoint_fails_what_waits_and_ends_what_has_begun(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    begun, waiting = scene.ask(1, 2)

    scene.do(lambda: scene.plane.close_endpoint("sum"))
    assert isinstance(waiting.exception(), UnknownEndpoint)
    scene.do(worker.answer)

    assert begun.result().document == {"n": 1}
    assert isinstance(scene.ask(3)[0].exception(), UnknownEndpoint)
    scene.do(lambda: scene.plane.close_endpoint("sum"))


def test_an_endpoint_opened_again_has_the_new_settings_and_its_calls(scene: Scene) -> None:
    scene.open(queue_limit=1)
    worker = scene.worker()
    first, second = scene.ask(1, 2)

    scene.open(queue_limit=2, generation=None)
    (third,) = scene.ask(3)
    for _ in range(3):
        scene.do(worker.answer)

    assert [task.result().document["n"] for task in (first, second, third)] == [1, 2, 3]


def test_a_drained_generation_has_no_call_in_flight(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.ask(1)
    scene.do(lambda: scene.plane.serve("sum", 2, "label 2"))

    waits = scene.loop.create_task(scene.plane.drained("sum", 1, Deadline(timedelta(seconds=60))))
    too_short = scene.loop.create_task(scene.plane.drained("sum", 1, Deadline(timedelta(0))))
    scene.loop.pass_time(0.2)
    assert not waits.done()
    assert too_short.result() is False
    scene.do(worker.answer)

    assert waits.result() is True


def test_two_hundred_generations_leave_nothing_behind(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    for number in range(2, 200):
        scene.hold(worker, number)
        scene.do(lambda number=number: scene.plane.serve("sum", number, ""))  # type: ignore[misc]
        scene.ask(number)
        scene.ask(number, generation=number)
        scene.do(lambda number=number: scene.plane.remove_holder(worker, "sum", number - 1))  # type: ignore[misc]
        scene.do(worker.answer)
        scene.do(worker.answer)
    gc.collect()

    kept = [one for one in gc.get_objects() if isinstance(one, HeldGeneration)]

    assert scene.count().handled == 2 * 198
    assert len(kept) == 1


def test_links_are_counted_each_for_itself(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.ask(1)

    scene.loop.pass_time(0.5)
    scene.do(lambda: worker.answer(seconds=0.25))

    counted = scene.plane.link_statistics(worker)
    assert (counted.handled, counted.inference_mean_seconds) == (1, 0.25)
    assert counted.handling_mean_seconds == pytest.approx(0.5)
    assert scene.plane.link_statistics(HeldLink(scene.plane)).handled == 0

"""Who gets which call, and what becomes of it when workers come and go."""

import pytest

from contracts.inference import EndpointNotReady, UnknownEndpoint, WorkerLost
from contracts.worker_protocol import FromGateway
from online_gateway.dataplane.lanes import RETURN_SECONDS
from online_gateway.dataplane.links import WINDOW
from tests.support.data_plane import FAST, SLOW, Scene, numbers, scene

__all__ = ["scene"]


def test_a_slow_endpoints_worker_has_one_call_at_a_time(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()

    scene.ask(1, 2, 3)
    assert numbers(worker) == [1]
    scene.do(lambda: worker.answer(seconds=SLOW))

    assert numbers(worker) == [2]


def test_a_fast_endpoints_worker_has_many_calls_in_one_frame(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.learn(worker, FAST)

    scene.ask(*range(WINDOW + 10))

    assert len(worker.frames[-1].calls) == len(worker.calls) == WINDOW
    assert not worker.frames[-1].together


def test_an_endpoint_that_becomes_slow_is_given_single_calls_again(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.learn(worker, FAST)
    scene.ask(*range(10))

    scene.do(lambda: worker.answer(seconds=SLOW))
    scene.ask(*range(10))

    assert len(worker.calls) == 1


def test_calls_are_shared_among_the_least_loaded(scene: Scene) -> None:
    scene.open()
    first = scene.worker(worker_id="first")
    scene.learn(first, FAST)
    scene.ask(*range(10))
    second = scene.worker(worker_id="second")

    scene.ask(*range(10, 24))

    assert (len(first.calls), len(second.calls)) == (12, 12)


def test_idle_workers_have_their_turns_one_after_the_other(scene: Scene) -> None:
    scene.open()
    workers = [scene.worker(worker_id=name) for name in "abc"]
    for number in range(9):
        scene.ask(number)
        for worker in workers:
            scene.do(worker.answer)

    assert [len(worker.frames) for worker in workers] == [3, 3, 3]


def test_endpoints_that_share_a_worker_have_their_turns_in_a_circle(scene: Scene) -> None:
    scene.open("a")
    scene.open("b")
    worker = scene.worker("a", "b")

    scene.ask(1, 2, 3, 4, name="a")
    scene.ask(11, 12, name="b")
    order = []
    while worker.calls:
        order += numbers(worker)
        scene.do(worker.answer)

    assert order == [1, 2, 11, 3, 12, 4]


def test_a_slow_endpoint_has_its_turn_beside_one_that_keeps_their_worker_busy(scene: Scene) -> None:
    scene.open("fast")
    scene.open("slow")
    worker = scene.worker("fast", "slow")
    scene.learn(worker, FAST, "fast")
    scene.ask(*range(80), name="fast")
    (slow,) = scene.ask(1000, name="slow")

    while not slow.done():
        scene.ask(5, name="fast")
        assert len(worker.frames) < 5
        scene.do(lambda: worker.answer(*list(worker.calls)[:40], seconds=FAST))

    assert [call.endpoint for call in worker.frames[2].calls] == ["slow"]
    assert len(worker.calls) > 0


def test_a_batch_leaves_when_it_is_full(scene: Scene) -> None:
    scene.open(batch_size=4)
    worker = scene.worker()

    scene.ask(1, 2, 3)
    assert not worker.frames
    scene.ask(4, 5)

    assert [(len(frame.calls), frame.together) for frame in worker.frames] == [(4, True)]


def test_a_batch_leaves_when_its_first_call_has_waited_long_enough(scene: Scene) -> None:
    scene.open(batch_size=4, batch_delay_seconds=0.02)
    worker = scene.worker()
    scene.ask(1)
    scene.loop.pass_time(0.015)
    scene.ask(2)

    assert not worker.frames
    scene.loop.pass_time(0.006)

    assert numbers(worker) == [1, 2]


def test_calls_that_waited_for_a_busy_worker_make_one_batch(scene: Scene) -> None:
    scene.open(batch_size=4, batch_delay_seconds=0.0)
    worker = scene.worker()
    scene.ask(0)
    scene.ask(1, 2)
    scene.ask(3, 4, 5)
    assert numbers(worker) == [0]

    scene.do(lambda: worker.answer(seconds=SLOW))

    assert numbers(worker) == [1, 2, 3, 4]


def test_a_second_batch_waits_at_a_fast_endpoints_worker(scene: Scene) -> None:
    scene.open(batch_size=50, batch_delay_seconds=0.0)
    worker = scene.worker()
    scene.learn(worker, FAST)

    scene.ask(*range(50))
    scene.ask(*range(50, 100))
    scene.ask(*range(100, 150))

    assert [len(frame.calls) for frame in worker.frames[1:]] == [50, 50]


def test_a_dead_worker_fails_what_it_had_begun_and_nothing_else(scene: Scene) -> None:
    scene.open()
    dead, other = scene.worker(worker_id="dead"), scene.worker(worker_id="other")
    tasks = scene.ask(0, 1, 2, 3)
    begun = numbers(dead)[0]

    scene.do(lambda: scene.plane.remove_link(dead, "its connection broke"))
    while other.calls:
        scene.do(other.answer)

    error = tasks[begun].exception()
    assert isinstance(error, WorkerLost)
    assert "dead" in error.message
    assert "its connection broke" in error.message
    assert sorted(task.result().document["n"] for task in tasks if task is not tasks[begun]) == sorted(
        {0, 1, 2, 3} - {begun}
    )


def test_a_begun_call_is_tried_once_more_where_the_endpoint_allows_it(scene: Scene) -> None:
    scene.open(retries_begun=True)
    workers = [scene.worker(worker_id="a")]
    (task,) = scene.ask(1)
    (waiting,) = scene.ask(2)
    workers += [scene.worker(worker_id="b")]
    assert numbers(workers[1]) == [2]

    scene.do(lambda: scene.plane.remove_link(workers[0], "killed"))
    scene.do(workers[1].answer)
    assert waiting.done()
    assert numbers(workers[1]) == [1]
    scene.do(lambda: scene.plane.remove_link(workers[1], "killed"))

    assert isinstance(task.exception(), WorkerLost)


def test_calls_wait_for_a_worker_that_comes_back(scene: Scene) -> None:
    scene.open()
    dead = scene.worker()
    begun, waiting = scene.ask(1, 2)

    scene.do(lambda: scene.plane.remove_link(dead, "killed"))
    assert isinstance(begun.exception(), WorkerLost)
    scene.loop.pass_time(RETURN_SECONDS - 0.5)
    (late,) = scene.ask(3)
    again = scene.worker()
    scene.do(again.answer)
    scene.do(again.answer)

    assert (waiting.result().document, late.result().document) == ({"n": 2}, {"n": 3})


def test_calls_do_not_wait_for_ever_for_a_worker(scene: Scene) -> None:
    scene.open(deadline_seconds=100)
    dead = scene.worker()
    _, waiting = scene.ask(1, 2)

    scene.do(lambda: scene.plane.remove_link(dead, "killed"))
    scene.loop.pass_time(RETURN_SECONDS + 0.06)
    (late,) = scene.ask(3)

    assert isinstance(waiting.exception(), EndpointNotReady)
    assert isinstance(late.exception(), EndpointNotReady)
    assert (scene.count().failed, scene.count().refused) == (2, 1)


def test_a_worker_that_leaves_gets_nothing_new_and_its_answers_count(scene: Scene) -> None:
    scene.open()
    leaving = scene.worker(worker_id="leaving")
    begun, waiting = scene.ask(1, 2)

    scene.do(lambda: scene.plane.stop_feeding(leaving))
    scene.hold(leaving, 1)
    scene.do(leaving.answer)
    assert begun.result().document == {"n": 1}
    assert not leaving.calls
    other = scene.worker(worker_id="other")
    scene.do(other.answer)

    assert waiting.result().worker_id == "other"


def test_a_worker_that_was_lost_gets_nothing_even_if_its_acknowledgement_comes_late(scene: Scene) -> None:
    scene.open()
    lost = scene.worker()

    scene.do(lambda: scene.plane.remove_link(lost, "killed"))
    scene.hold(lost, 1)
    scene.ask(1)

    assert not lost.calls


def test_a_call_goes_elsewhere_when_the_worker_has_lost_the_generation(scene: Scene) -> None:
    scene.open()
    empty, other = scene.worker(worker_id="empty"), scene.worker(worker_id="other")
    tasks = scene.ask(1, 2)

    scene.do(lambda: empty.fail("not_loaded"))
    scene.do(other.answer)
    scene.do(other.answer)

    assert [task.result().worker_id for task in tasks] == ["other", "other"]


def test_a_worker_lost_within_send_loses_what_it_was_given_and_no_more(scene: Scene) -> None:
    scene.open(batch_size=2)
    dying, other = scene.worker(worker_id="dying"), scene.worker(worker_id="other")

    def die(_: FromGateway) -> None:
        scene.plane.remove_link(dying, "it reads nothing")

    dying.on_send = die
    tasks = scene.ask(1, 2, 3, 4)
    for _ in range(2):
        scene.do(other.answer)

    ends = [task.exception() for task in tasks]
    assert sum(isinstance(end, WorkerLost) for end in ends) == 2
    assert ends.count(None) == 2


def test_waiting_calls_go_to_the_new_generation_and_begun_ones_end_on_the_old(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    begun, waiting = scene.ask(1, 2)
    scene.hold(worker, 2)

    scene.do(lambda: scene.plane.serve("sum", 2, "second"))
    scene.do(worker.answer)
    scene.do(worker.answer)

    assert (begun.result().generation, begun.result().label) == (1, "label 1")
    assert (waiting.result().generation, waiting.result().label) == (2, "second")


def test_a_new_generation_is_slow_until_it_has_shown_otherwise(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.learn(worker, FAST)
    scene.hold(worker, 2)

    scene.do(lambda: scene.plane.serve("sum", 2, "second"))
    scene.ask(1, 2)

    assert numbers(worker) == [1]


def test_a_call_for_one_generation_goes_to_its_holders_alone(scene: Scene) -> None:
    scene.open()
    old, new = scene.worker(worker_id="old"), scene.worker(worker_id="new", generation=2)
    scene.do(lambda: scene.plane.serve("sum", 2, "second"))

    (pinned,) = scene.ask(1, generation=1)
    scene.ask(2)
    assert (numbers(old), numbers(new)) == ([1], [2])
    scene.do(old.answer)

    assert pinned.result().generation == 1


def test_an_unknown_generation_is_refused_and_those_there_are_named(scene: Scene) -> None:
    scene.open()
    scene.worker(generation=1, worker_id="a")
    not_yet_served = scene.worker(generation=2, worker_id="b")

    (never,) = scene.ask(1, generation=7)
    (soon,) = scene.ask(2, generation=2)

    for task in (never, soon):
        error = task.exception()
        assert isinstance(error, UnknownEndpoint)
        assert "there are: 1" in error.message
    assert not not_yet_served.calls


def test_calls_for_a_generation_that_is_let_go_fail(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    begun, waiting = scene.ask(1, 2, generation=1)
    scene.hold(worker, 2)
    scene.do(lambda: scene.plane.serve("sum", 2, "second"))

    scene.do(lambda: scene.plane.remove_holder(worker, "sum", 1))
    scene.do(worker.answer)

    assert begun.result().generation == 1
    assert isinstance(waiting.exception(), UnknownEndpoint)


def test_an_endpoint_that_serves_nothing_is_not_ready(scene: Scene) -> None:
    scene.open()
    scene.worker()
    begun, waiting = scene.ask(1, 2)

    scene.do(lambda: scene.plane.serve("sum", None))
    (late,) = scene.ask(3)

    assert not begun.done()
    assert isinstance(waiting.exception(), EndpointNotReady)
    assert isinstance(late.exception(), EndpointNotReady)


@pytest.mark.parametrize("generation", [None, 1])
def test_an_endpoint_that_never_served_is_not_ready(scene: Scene, generation: int | None) -> None:
    scene.open(generation=None)

    (task,) = scene.ask(1, generation=generation)

    assert isinstance(task.exception(), EndpointNotReady)


def test_the_old_generations_answers_say_nothing_of_how_fast_the_new_one_is(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.learn(worker, FAST)
    scene.ask(*range(5))
    other = scene.worker(generation=2, worker_id="other")

    scene.do(lambda: scene.plane.serve("sum", 2, "second"))
    scene.do(lambda: worker.answer(seconds=FAST))
    scene.ask(10, 11)

    assert numbers(other) == [10]


def test_a_call_for_one_generation_finds_its_holders_though_it_was_let_go_meanwhile(scene: Scene) -> None:
    scene.open(retries_begun=True)
    dead = scene.worker()
    (task,) = scene.ask(1, generation=1)
    other = scene.worker(generation=2, worker_id="other")
    scene.do(lambda: scene.plane.serve("sum", 2, "second"))
    scene.do(lambda: scene.plane.remove_holder(dead, "sum", 1))
    scene.hold(other, 1)

    scene.do(lambda: scene.plane.remove_link(dead, "killed"))
    scene.do(other.answer)

    assert (task.result().worker_id, task.result().generation) == ("other", 1)


def test_a_generation_that_nobody_held_any_more_is_forgotten_with_the_flip(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    scene.do(lambda: scene.plane.remove_holder(worker, "sum", 1))
    scene.hold(worker, 2)

    scene.do(lambda: scene.plane.serve("sum", 2, "second"))

    assert list(scene.plane._endpoints["sum"].generations) == [2]


def test_an_answer_in_the_tick_in_which_its_client_goes_away_is_dropped(scene: Scene) -> None:
    scene.open()
    worker = scene.worker()
    (task,) = scene.ask(1)

    def cancel_and_answer() -> None:
        task.cancel()
        worker.answer()

    scene.do(cancel_and_answer)

    assert task.cancelled()
    assert scene.count().cancelled + scene.count().handled == 1


def test_a_worker_kept_free_for_a_call_that_ends_is_given_to_others_at_once(scene: Scene) -> None:
    scene.open("fast")
    scene.open("slow")
    worker = scene.worker("fast", "slow")
    scene.learn(worker, FAST, "fast")
    scene.ask(*range(WINDOW + 1), name="fast")
    scene.ask(1000, name="slow", budget_seconds=0.33)
    scene.loop.pass_time(0.34)

    scene.do(lambda: worker.answer(seconds=FAST))

    assert numbers(worker) == [WINDOW]

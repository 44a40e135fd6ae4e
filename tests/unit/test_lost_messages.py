from private_api.services.lost_messages import LossWatch


def test_a_shortfall_that_stands_still_for_two_looks_is_a_loss() -> None:
    watch = LossWatch()

    answers = [watch.look(ready=2, pending=3), watch.look(ready=2, pending=3)]

    assert answers == [False, True]


def test_a_message_that_a_consumer_is_just_claiming_is_no_loss() -> None:
    watch = LossWatch()

    answers = [watch.look(ready=2, pending=3), watch.look(ready=2, pending=2), watch.look(ready=1, pending=2)]

    assert answers == [False, False, False]


def test_a_full_queue_and_one_with_duplicates_are_no_loss() -> None:
    watch = LossWatch()

    answers = [watch.look(ready, pending) for ready, pending in [(3, 3), (3, 3), (5, 3), (5, 3), (0, 0), (0, 0)]]

    assert not any(answers)


def test_a_shortfall_seen_at_every_look_of_a_busy_queue_is_a_loss() -> None:
    watch = LossWatch()

    answers = [watch.look(ready=100 - number, pending=101 - number) for number in range(10)]

    assert answers == [False] * 9 + [True]


def test_after_a_repair_or_an_outage_the_count_begins_anew() -> None:
    watch = LossWatch()
    watch.look(ready=0, pending=1)

    watch.forget()

    assert watch.look(ready=0, pending=1) is False
    assert watch.look(ready=0, pending=1) is True
    assert watch.look(ready=0, pending=1) is False

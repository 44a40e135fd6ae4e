import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import IllegalTransition
from contracts.task_state import LIVE_STATES, POLL_STATUS, TRANSITIONS, TaskState, check_transition

LEGAL = {
    ("pending", "running"),
    ("pending", "cancelled"),
    ("running", "finished"),
    ("running", "failed"),
    ("running", "pending"),
    ("running", "cancelled"),
}

states = st.sampled_from(TaskState)


@given(states, states)
def test_the_legal_moves_are_these_six_and_no_others(here: TaskState, there: TaskState) -> None:
    if (here.value, there.value) in LEGAL:
        check_transition(here, there)
    else:
        with pytest.raises(IllegalTransition, match=f"from {here} to {there}"):
            check_transition(here, there)


def test_every_state_is_live_or_final_and_final_ones_have_no_way_out() -> None:
    assert {state.value for state in LIVE_STATES} == {"pending", "running"}
    for state in TaskState:
        assert state.is_final == (state not in LIVE_STATES) == (TRANSITIONS[state] == frozenset())


def test_every_live_state_leads_to_an_end() -> None:
    reached = set(LIVE_STATES)
    for state in LIVE_STATES:
        reached |= TRANSITIONS[state]

    assert reached == set(TaskState)


def test_each_state_answers_polls_as_existing_clients_know_it() -> None:
    answers = {state.value: status for state, status in POLL_STATUS.items()}

    assert answers == {"pending": 551, "running": 551, "finished": 200, "failed": 552, "cancelled": 552}


def test_no_transition_can_be_added_at_run_time() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[TaskState.FINISHED] = frozenset()  # type: ignore[index]

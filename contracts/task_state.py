"""The states of a task and the moves between them: the only place that names them.

Only ``private_api`` writes a state, by compare-and-set; everybody else reads.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from contracts.errors import IllegalTransition


class TaskState(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    """Stored, waiting for a consumer; also after a lost or handed-back attempt."""
    RUNNING = "running"
    """One consumer holds the lease of the current attempt."""
    FINISHED = "finished"
    """The model ended well and its output was committed."""
    FAILED = "failed"
    """The model failed, or the platform ran out of attempts."""
    CANCELLED = "cancelled"
    """A client called it off."""

    @property
    def is_final(self) -> bool:
        """Whether no move leads out of this state."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = MappingProxyType(
    {
        TaskState.PENDING: frozenset({TaskState.RUNNING, TaskState.CANCELLED}),
        TaskState.RUNNING: frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.PENDING, TaskState.CANCELLED}),
        TaskState.FINISHED: frozenset(),
        TaskState.FAILED: frozenset(),
        TaskState.CANCELLED: frozenset(),
    }
)

LIVE_STATES = frozenset(state for state in TaskState if TRANSITIONS[state])

# What the polling route GET /api/tasks/{uid} answers, and that route alone.
POLL_OUTPUT_READY = 200
POLL_PENDING = 551
POLL_FAILED = 552
POLL_OUTPUT_MISSING = 553
POLL_NOT_FOUND = 554

POLL_STATUS: Mapping[TaskState, int] = MappingProxyType(
    {
        TaskState.PENDING: POLL_PENDING,
        TaskState.RUNNING: POLL_PENDING,
        TaskState.FINISHED: POLL_OUTPUT_READY,
        TaskState.FAILED: POLL_FAILED,
        TaskState.CANCELLED: POLL_FAILED,
    }
)


def check_transition(from_state: TaskState, to_state: TaskState) -> None:
    """Let a legal move pass.

    Raises
    ------
    IllegalTransition
        The table has no edge from the first state to the second.
    """
    if to_state not in TRANSITIONS[from_state]:
        raise IllegalTransition(from_state, to_state)

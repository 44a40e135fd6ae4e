"""What the sweeper says of its work: a removal when it is done, and nothing of one that was not."""

from collections.abc import MutableMapping, Sequence
from datetime import timedelta
from typing import Any

from structlog.testing import capture_logs

from contracts.tasks import AttemptRef
from job_consumer.sweeper import Sweeper
from tests.support.fake_runner import FakeRunner

STALE = AttemptRef(task_id=1, attempt=1, consumer="dead")
STUBBORN = AttemptRef(task_id=2, attempt=1, consumer="dead")
CURRENT = AttemptRef(task_id=3, attempt=1, consumer="alive")

Lines = list[MutableMapping[str, Any]]


class CrowdedHost(FakeRunner):
    """Has leftovers of three attempts, one of which cannot be removed."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.here = [STALE, STUBBORN, CURRENT]
        self.told_before: dict[AttemptRef, set[int]] = {}
        self._lines = lines

    def leftovers(self) -> list[AttemptRef]:
        return list(self.here)

    def remove_leftover(self, attempt: AttemptRef) -> bool:
        self.told_before[attempt] = told(self._lines)
        if attempt == STUBBORN:
            return False
        self.here.remove(attempt)
        return True


class Registry:
    def stale_attempts(self, attempts: Sequence[AttemptRef]) -> list[AttemptRef]:
        return [attempt for attempt in attempts if attempt != CURRENT]

    def model_content_hashes(self) -> frozenset[str]:
        return frozenset()


def told(lines: Lines) -> set[int]:
    """The tasks whose removal the log tells."""
    return {line["task_id"] for line in lines if line["event"] == "leftover_removed"}


def test_a_removal_is_told_when_it_is_done_and_only_then() -> None:
    with capture_logs() as lines:
        host = CrowdedHost(lines)

        Sweeper(host, Registry(), timedelta(days=1)).sweep()

    assert host.here == [STUBBORN, CURRENT]
    assert host.told_before == {STALE: set(), STUBBORN: {STALE.task_id}}
    assert told(lines) == {STALE.task_id}

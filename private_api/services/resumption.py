"""What becomes of live tasks when a platform is restored from a backup.

No consumer holds what the backup calls running, and the broker holds no message of it: each such attempt is handed
back, at no cost to its task, and every pending task is marked for a message. Fences only grow, so a consumer that still
works on an attempt from before is refused like any other that is late.
"""

from contracts.tasks import Outcome
from private_api.services.tasks import requeue
from private_api.storage import attempts as attempt_rows
from private_api.storage import outbox
from private_api.storage import tasks as task_rows
from private_api.storage.database import Transaction

_REASON = "The platform was restored from a backup that was made while this attempt ran."
_BATCH = 200


def resume(tx: Transaction) -> int:
    """Make every live task wait for a consumer; how many wait."""
    while running := task_rows.running_tasks(tx, _BATCH):
        for task in running:
            requeue(tx, task, handed_back=True)
            attempt_rows.end_attempt(tx, task.id, task.attempt, outcome=Outcome.HANDED_BACK.value, reason=_REASON)
    return outbox.mark_all(tx)

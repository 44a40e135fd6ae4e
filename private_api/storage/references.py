"""Which stored files a row still names; the others are orphans."""

from collections.abc import Sequence

from sqlalchemy import and_, select

from private_api.storage.database import Transaction
from private_api.storage.files import BlobKind
from private_api.storage.schema import attempts, is_running, models, tasks


def named_files(tx: Transaction, names: Sequence[str]) -> set[str]:
    """Those of the names that a row still needs."""
    inputs = select(tasks.c.input_blob).where(tasks.c.input_blob.in_(_of_kind(names, BlobKind.INPUT)))
    contents = select(models.c.content_blob).where(models.c.content_blob.in_(_of_kind(names, BlobKind.MODEL)))
    ids = {task_id for name in _of_kind(names, BlobKind.OUTPUT) if (task_id := _task_of(name)) is not None}
    outputs = select(tasks.c.output_blob).where(tasks.c.id.in_(ids), tasks.c.output_blob.is_not(None))
    uploads = (
        select(attempts.c.upload_blob)
        .join(tasks, and_(tasks.c.id == attempts.c.task_id, tasks.c.attempt == attempts.c.number))
        .where(attempts.c.task_id.in_(ids), attempts.c.upload_blob.is_not(None), is_running)
    )
    return {str(name) for query in (inputs, contents, outputs, uploads) for name in tx.execute(query).scalars()}


def _of_kind(names: Sequence[str], kind: BlobKind) -> list[str]:
    return [name for name in names if name.startswith(f"{kind}/")]


def _task_of(name: str) -> int | None:
    """The number of the task that an output's name begins with; None for a file that is not ours."""
    number = name.partition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() and len(number) < 19 else None

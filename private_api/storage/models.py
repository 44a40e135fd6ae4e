"""Rows of models: each function works inside the caller's transaction."""

from typing import Any

from sqlalchemy import Row, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.errors import DuplicateModel
from contracts.models import RequestedLimits
from private_api.records import Blob, ModelRecord, NewModel
from private_api.storage.database import Transaction
from private_api.storage.schema import db_now, is_live, models, tasks

_is_registered = models.c.deleted_at.is_(None)


def insert_model(tx: Transaction, uid: str, model: NewModel, content: Blob | None) -> None:
    """Add a model.

    Raises
    ------
    DuplicateModel
        The human readable id is taken.
    """
    row = {name: getattr(model, name) for name in NewModel.__slots__ if name != "limits"}
    row |= {"uid": uid, "limits": model.limits.model_dump(mode="json", exclude_none=True), "created_at": db_now()}
    if content is not None:
        row |= {"content_blob": content.name, "content_sha256": content.sha256, "content_size": content.size}
    try:
        tx.execute(insert(models).values(row))
    except IntegrityError as error:
        raise taken(model.human_readable_id) from error


def taken(human_readable_id: str) -> DuplicateModel:
    """The error that says whose id is taken."""
    return DuplicateModel(f"The id {human_readable_id!r} is taken; choose another or delete that model first.")


def find_model(tx: Transaction, human_readable_id: str) -> ModelRecord | None:
    """The registered model of that id."""
    query = select(models).where(_is_registered, models.c.human_readable_id == human_readable_id)
    return _record_or_none(tx.execute(query).one_or_none())


def lock_model(tx: Transaction, human_readable_id: str, *, to_delete: bool) -> ModelRecord | None:
    """The registered model, held until the transaction ends: shared to add a task, alone to delete it."""
    query = (
        select(models)
        .where(_is_registered, models.c.human_readable_id == human_readable_id)
        .with_for_update(read=not to_delete)
    )
    return _record_or_none(tx.execute(query).one_or_none())


def find_model_by_uid(tx: Transaction, uid: str) -> ModelRecord | None:
    """The registered model of that uid."""
    return _record_or_none(tx.execute(select(models).where(_is_registered, models.c.uid == uid)).one_or_none())


def model_of_task(tx: Transaction, model_id: int) -> ModelRecord:
    """The model of a task, deleted or not."""
    return _record(tx.execute(select(models).where(models.c.id == model_id)).one())


def list_models(tx: Transaction) -> list[ModelRecord]:
    """All registered models, the oldest first."""
    return [_record(row) for row in tx.execute(select(models).where(_is_registered).order_by(models.c.id))]


def has_live_tasks(tx: Transaction, model_id: int) -> bool:
    """Whether a pending or running task of the model exists."""
    return bool(tx.execute(select(exists().where(is_live, tasks.c.model_id == model_id))).scalar_one())


def mark_model_deleted(tx: Transaction, model_id: int) -> None:
    """Take the model off the list; its row stays for its ended tasks."""
    values = {"deleted_at": db_now(), "content_blob": None}
    tx.execute(update(models).where(models.c.id == model_id).values(values))


def content_hashes(tx: Transaction) -> list[str]:
    """The hashes of all content that registered models have."""
    query = select(models.c.content_sha256).where(_is_registered, models.c.content_blob.is_not(None)).distinct()
    return list(tx.execute(query).scalars())


def _record_or_none(row: Row[Any] | None) -> ModelRecord | None:
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> ModelRecord:
    has_content = row.content_blob is not None
    return ModelRecord(
        id=row.id,
        uid=row.uid,
        registered=NewModel(
            human_readable_id=row.human_readable_id,
            description=row.description,
            container_tag=row.container_tag,
            use_gpu=row.use_gpu,
            input_mountpoint=row.input_mountpoint,
            output_mountpoint=row.output_mountpoint,
            model_mountpoint=row.model_mountpoint,
            limits=RequestedLimits.model_validate(row.limits),
        ),
        content=Blob(row.content_blob, row.content_sha256, row.content_size) if has_content else None,
        created_at=row.created_at,
        is_deleted=row.deleted_at is not None,
    )

"""Registering, listing and deleting models."""

import secrets
from collections.abc import Sequence

from contracts.errors import Conflict, InvalidRequest, PlatformError, Unavailable, UnknownModel
from private_api.records import Blob, ModelRecord, NewModel
from private_api.services.limits import LimitPolicy
from private_api.storage import models as model_rows
from private_api.storage.database import Database, Transaction
from private_api.storage.files import BlobStore
from service_kit.logging import get_logger

log = get_logger(__name__)


class Models:
    """The registered models."""

    def __init__(self, database: Database, files: BlobStore, limits: LimitPolicy) -> None:
        self._database = database
        self._files = files
        self._limits = limits

    async def check(self, model: NewModel) -> None:
        """Refuse a registration before its content is read.

        Raises
        ------
        DuplicateModel, LimitAboveCeiling
            See their docstrings.
        InvalidRequest
            Two of the three folders are one, or one holds the other.
        """
        self._limits.check(model.limits)
        _check_mountpoints(model)
        if await self._database.read(lambda tx: model_rows.find_model(tx, model.human_readable_id)):
            raise model_rows.taken(model.human_readable_id)

    async def register(self, model: NewModel, content: Blob | None) -> ModelRecord:
        """Store the model; raises as :meth:`check` does, and then keeps no content."""
        uid = secrets.token_hex(16)

        def store(tx: Transaction) -> ModelRecord | None:
            model_rows.insert_model(tx, uid, model, content)
            return model_rows.find_model_by_uid(tx, uid)

        try:
            await self.check(model)
            record = await self._database.write(store)
        except Unavailable:
            raise  # in doubt: if no row names the file, the sweep removes it
        except PlatformError:
            await self._files.remove([content.name] if content else [])
            raise
        assert record is not None  # noqa: S101 - read in the transaction that wrote it
        log.info("model_registered", model=model.human_readable_id, image=model.container_tag, gpu=model.use_gpu)
        return record

    async def list(self) -> Sequence[ModelRecord]:
        """All models, the oldest first."""
        return await self._database.read(model_rows.list_models)

    async def find(self, human_readable_id: str) -> ModelRecord:
        """The model of that id, or UnknownModel."""
        return _existing(
            human_readable_id, await self._database.read(lambda tx: model_rows.find_model(tx, human_readable_id))
        )

    async def delete(self, human_readable_id: str) -> None:
        """Take the model off the list and remove its content; its ended tasks stay readable.

        Raises
        ------
        UnknownModel
            There is none.
        Conflict
            Tasks of it are pending or running.
        """

        def forget(tx: Transaction) -> ModelRecord:
            found = model_rows.lock_model(tx, human_readable_id, to_delete=True)
            model = _existing(human_readable_id, found)
            if model_rows.has_live_tasks(tx, model.id):
                raise Conflict(
                    f"Tasks of the model {human_readable_id!r} are pending or running; wait for them or cancel them."
                )
            model_rows.mark_model_deleted(tx, model.id)
            return model

        model = await self._database.write(forget)
        await self._files.remove([model.content.name] if model.content else [])
        log.info("model_deleted", model=human_readable_id)

    async def content(self, uid: str) -> Blob:
        """The content of the model of that uid, or UnknownModel."""
        model = await self._database.read(lambda tx: model_rows.find_model_by_uid(tx, uid))
        if model is None or model.content is None:
            raise UnknownModel("No model of this uid has content.")
        return model.content

    async def content_hashes(self) -> Sequence[str]:
        """The hashes of all content that may still be asked for."""
        return await self._database.read(model_rows.content_hashes)


def _existing(human_readable_id: str, model: ModelRecord | None) -> ModelRecord:
    if model is None:
        raise UnknownModel(f"No model is registered as {human_readable_id!r}; register it at /api/models/.")
    return model


_KERNELS_OWN = ("/proc", "/sys", "/dev")
"""Where no engine mounts a folder; the failure would look like trouble of the platform's own, attempt by attempt."""


def _check_mountpoints(model: NewModel) -> None:
    folders = [model.input_mountpoint, model.output_mountpoint, model.model_mountpoint]
    for one in folders:
        if any(part in {".", ".."} for part in one.split("/")):
            raise InvalidRequest(f"The mountpoint {one!r} holds a '.' or '..'; write the folder out.")
        if any((one + "/").startswith(kernels + "/") for kernels in _KERNELS_OWN):
            raise InvalidRequest(f"The mountpoint {one!r} lies in a folder of the kernel; choose another.")
        others = [other for other in folders if other is not one]
        if any((one + "/").startswith(other + "/") for other in others):
            raise InvalidRequest(f"The mountpoint {one!r} lies in another one; give each folder a place of its own.")

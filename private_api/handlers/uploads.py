"""Uploads of zips: refused early where they can be, streamed into the store, and checked."""

from starlette.requests import Request

from contracts.archives import check_archive
from contracts.errors import UploadTooLarge
from private_api.handlers.services import Services
from private_api.records import Blob
from private_api.storage.files import BlobKind
from service_kit.multipart import OTHER_FIELDS_BYTES, UploadForm, declared_length

FILE_FIELD = "zip_file"


def refuse_early(request: Request, services: Services, most_bytes: int) -> None:
    """Refuse by the declared length what would be refused while reading.

    Raises
    ------
    UploadTooLarge, StorageFull
        The body is above the limit, or the disk has no room for it.
    """
    length = declared_length(request)
    if length > most_bytes + OTHER_FIELDS_BYTES:
        raise UploadTooLarge(f"The upload has {length} bytes; the limit is {most_bytes}.")
    services.files.check_space(length)


async def store_zip(services: Services, form: UploadForm, kind: BlobKind) -> Blob:
    """Store the file of the form, and check that it is an acceptable zip; nothing is left where it is not."""
    blob = await services.files.receive(kind, form.chunks(), services.bounds.upload_bytes)
    try:
        await services.files.in_thread(check_archive, services.files.path(blob.name), services.bounds.archive)
    except BaseException:
        await services.files.remove([blob.name])
        raise
    return blob


async def receive_zip(request: Request, services: Services, kind: BlobKind) -> Blob | None:
    """The zip of a multipart request, stored and checked; None where the form has none, or there is no form at all."""
    if "content-type" not in request.headers and declared_length(request) == 0:
        return None
    refuse_early(request, services, services.bounds.upload_bytes)
    form = UploadForm(request, FILE_FIELD)
    return await store_zip(services, form, kind) if await form.find() else None


UPLOAD_BODY = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FILE_FIELD: {"type": "string", "format": "binary"}},
                }
            }
        }
    }
}
"""How the upload looks in the API's description."""

"""Stored files as answers."""

import os

from fastapi.responses import FileResponse

from private_api.records import Blob
from private_api.storage.files import BlobStore


class BlobResponse(FileResponse):
    """A stored file in large chunks, with its hash as ETag; ranges and HEAD work."""

    chunk_size = 2**20

    def __init__(self, files: BlobStore, blob: Blob, filename: str) -> None:
        """Look at the file.

        Raises
        ------
        FileNotFoundError
            The bytes are gone.
        """
        path = files.path(blob.name)
        super().__init__(
            path,
            media_type="application/zip",
            filename=filename,
            headers={"ETag": f'"{blob.sha256}"'},
            stat_result=os.stat(path),  # noqa: PTH116 - what the response takes
        )

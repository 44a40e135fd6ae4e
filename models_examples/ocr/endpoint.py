"""The page reader with its networks held in memory: a picture in, its lines out, in one call.

``{"image": base64 of a picture}`` is answered with what ``text.json`` holds of one picture. The networks come from the
zip that make_content.py writes; where none was installed, from the package that it takes them from.
"""

import base64
import binascii
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from detection import Detector
from make_content import NETWORKS, write_content
from PIL import Image
from reading import PictureError, as_json, read_lines, read_picture
from recognition import Recogniser
from weights import WeightsError

from online_worker.endpoint import Endpoint, InvalidInput

_MOST_NETWORK_BYTES = 256 * 2**20


class OcrEndpoint(Endpoint):
    """Reads one picture per call."""

    version = "1"
    _detector: Detector
    _recogniser: Recogniser

    def load(self, content: Path | None) -> None:
        """Open both networks.

        Raises
        ------
        WeightsError
            The content is not the zip that make_content.py writes, or there is none and the package cannot be had.
        """
        with tempfile.TemporaryDirectory(prefix="ocr-networks-") as scratch:
            folder = Path(scratch)
            _unpack(content or _from_package(folder), folder)
            self._detector, self._recogniser = Detector(folder), Recogniser(folder)

    def warm_up(self) -> None:
        """Look for text on an empty sheet."""
        read_lines(Image.new("RGB", (320, 320), "white"), self._detector, self._recogniser)

    def preprocess(self, inputs: dict[str, Any]) -> Image.Image:
        """The picture in ``image``."""
        encoded = inputs.get("image")
        if not isinstance(encoded, str):
            raise InvalidInput('Send {"image": a picture\'s bytes in base64}.')
        try:
            return read_picture(io.BytesIO(base64.b64decode(encoded, validate=True)), "The image")
        except binascii.Error as error:
            raise InvalidInput(f"The image is not base64: {error}.") from error
        except PictureError as error:
            raise InvalidInput(str(error)) from error

    def predict(self, prepared: Image.Image) -> dict[str, object]:
        """Its text and lines."""
        return as_json(read_lines(prepared, self._detector, self._recogniser))


def _from_package(folder: Path) -> Path:
    archive = folder / "content.zip"
    try:
        write_content(archive)
    except SystemExit as error:  # how a script ends
        raise WeightsError(f"{error} Or install the zip that make_content.py writes.") from error
    return archive


def _unpack(content: Path, folder: Path) -> None:
    """Take the two networks, and nothing else, out of the zip."""
    try:
        with zipfile.ZipFile(content) as archive:
            for name in NETWORKS.values():
                if archive.getinfo(name).file_size > _MOST_NETWORK_BYTES:
                    raise WeightsError(f"{name} has more than {_MOST_NETWORK_BYTES} bytes.")
                (folder / name).write_bytes(archive.read(name))
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"The content is not the zip that make_content.py writes: {error}.") from error

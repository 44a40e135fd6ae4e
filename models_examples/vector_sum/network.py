"""A network with one hidden layer that adds two numbers, and the text file that its weights travel in.

The file is base64, white space allowed, of an ``.npz`` archive with the four arrays of :data:`SHAPES`.
"""

import base64
import binascii
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HIDDEN = 8
SHAPES: Mapping[str, tuple[int, ...]] = {
    "hidden_weights": (2, HIDDEN),
    "hidden_biases": (HIDDEN,),
    "output_weights": (HIDDEN, 1),
    "output_bias": (1,),
}
MOST_BYTES = 64 * 1024
"""Of the file and of the archive in it, unpacked too; the weights need some 1,500."""


class WeightsError(Exception):
    """The file holds no weights of this network; the message says what is wrong."""


@dataclass(frozen=True)
class Network:
    """Tangents hyperbolic of the weighted inputs, and their weighted sum."""

    hidden_weights: Array
    hidden_biases: Array
    output_weights: Array
    output_bias: Array

    def hidden(self, vectors: Array) -> Array:
        """The hidden layer for vectors, one per row."""
        hidden: Array = np.tanh(vectors @ self.hidden_weights + self.hidden_biases)
        return hidden

    def predict(self, vectors: Array) -> Array:
        """The sums of vectors, one per row."""
        sums: Array = (self.hidden(vectors) @ self.output_weights + self.output_bias)[:, 0]
        return sums


def to_text(network: Network) -> str:
    """The weights as text; the same for the same weights."""
    archive = io.BytesIO()
    arrays: dict[str, Array] = {field.name: getattr(network, field.name) for field in fields(network)}
    np.savez(archive, allow_pickle=False, **arrays)
    return base64.encodebytes(archive.getvalue()).decode("ascii")


def from_text(text: bytes) -> Network:
    """The network of a weights file.

    Raises
    ------
    WeightsError
        It is too large, not base64, not such an archive, or an array is missing, of another shape, or not finite.
    """
    arrays = _arrays(_archive(text))
    if missing := sorted(SHAPES.keys() - arrays.keys()):
        raise WeightsError(f"The weights lack {', '.join(missing)}.")
    for name, shape in SHAPES.items():
        array = arrays[name]
        if array.shape != shape:
            raise WeightsError(f"{name} has the shape {list(array.shape)}; this network has {list(shape)}.")
        if array.dtype.kind != "f":
            raise WeightsError(f"{name} holds {array.dtype}; weights are floating-point numbers.")
        if not np.isfinite(array).all():
            raise WeightsError(f"{name} holds a number that is not finite.")
    return Network(**{name: arrays[name].astype(np.float64) for name in SHAPES})


def _archive(text: bytes) -> bytes:
    if len(text) > MOST_BYTES:
        raise WeightsError(f"The file has {len(text)} bytes; weights of this network have at most {MOST_BYTES}.")
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise WeightsError(f"The file is not base64: {error}.") from error


def _arrays(archive: bytes) -> Mapping[str, npt.NDArray[np.generic]]:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            if sum(member.file_size for member in packed.infolist()) > MOST_BYTES:
                raise WeightsError(f"The archive unpacks to more than {MOST_BYTES} bytes.")
        with np.load(io.BytesIO(archive), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, SyntaxError, NotImplementedError, MemoryError) as error:
        raise WeightsError(f"What the base64 holds is no .npz archive of arrays: {error}.") from error

"""Reads one line of text: a network gives each column the probability of each letter, repeats are joined (CTC)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from boxes import Box
from PIL import Image
from weights import RECOGNISER, WeightsError, open_network

HEIGHT = 48
"""The height in pixels that the network reads."""
_LEAST_WIDTH = 320
_CHARACTERS = "character"
_BLANK = 0


@dataclass(frozen=True)
class Reading:
    """A text and how sure the network is of it, from 0 to 1; 0 for no text."""

    text: str
    confidence: float


class Recogniser:
    """Reads lines with the recognition network of the model folder; the alphabet is in the network's metadata."""

    def __init__(self, model_folder: Path) -> None:
        self._network = open_network(model_folder, RECOGNISER)
        characters = self._network.get_modelmeta().custom_metadata_map.get(_CHARACTERS)
        if not characters:
            raise WeightsError(f"{model_folder / RECOGNISER} names no characters; make the content zip anew.")
        self._alphabet = ["", *characters.splitlines(), " "]

    def read(self, image: Image.Image, box: Box) -> Reading:
        """The text inside the box."""
        pixels = np.asarray(straightened(image, box), dtype=np.float32)
        normalised = pixels[:, :, ::-1].transpose(2, 0, 1) / 127.5 - 1  # trained on BGR
        padding = max(0, _LEAST_WIDTH - normalised.shape[2])
        padded = np.pad(normalised, ((0, 0), (0, 0), (0, padding)))
        probabilities = self._network.run(None, {self._network.get_inputs()[0].name: padded[None]})[0][0]
        return decode(probabilities, self._alphabet)


def straightened(image: Image.Image, box: Box) -> Image.Image:
    """The box cut out, turned level and brought to the network's height."""
    width = max(1, math.ceil(HEIGHT * box.width / box.height))
    top_left, top_right, bottom_right, bottom_left = box.corners
    quad = (*top_left, *bottom_left, *bottom_right, *top_right)
    return image.transform((width, HEIGHT), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)


def decode(probabilities: npt.NDArray[np.float32], alphabet: Sequence[str]) -> Reading:
    """The likeliest letter of each column, with repeats joined and blanks dropped."""
    best = probabilities.argmax(axis=1)
    kept = (best != _BLANK) & (best != np.concatenate(([_BLANK], best[:-1])))
    if not kept.any():
        return Reading("", 0.0)
    text = "".join(alphabet[number] for number in best[kept])
    return Reading(text, float(probabilities.max(axis=1)[kept].mean()))

"""Finds lines of text: a network gives each pixel the probability of text, connected regions become boxes (DB)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from boxes import Box, smallest_box
from PIL import Image
from scipy import ndimage
from weights import DETECTOR, open_network

SHORT_SIDE = 736
"""Images are enlarged to this short side, in pixels: the letters that the network learned had such a size."""
LONG_SIDE = 2560
"""No image becomes longer than this; it bounds time and memory."""
_STRIDE = 32
_PIXEL_THRESHOLD = 0.3
_BOX_THRESHOLD = 0.5
_UNCLIP_RATIO = 1.6
"""The network marks shrunken lines; its training fixed how much they are to be grown again."""
_LEAST_SIDE = 3.0

Probabilities = npt.NDArray[np.float32]


class Detector:
    """Finds text lines with the detection network of the model folder."""

    def __init__(self, model_folder: Path) -> None:
        self._network = open_network(model_folder, DETECTOR)

    def find(self, image: Image.Image) -> list[Box]:
        """Boxes of text in the RGB image, in its pixels, in no order."""
        size = _network_size(image.size)
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
        normalised = pixels[:, :, ::-1] / 127.5 - 1  # trained on BGR
        inputs = {self._network.get_inputs()[0].name: normalised.transpose(2, 0, 1)[None]}
        probabilities: Probabilities = self._network.run(None, inputs)[0][0, 0]
        factors = np.array(image.size) / np.array(size)
        return [box.scaled(factors) for box in boxes_in(probabilities)]


def _network_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height for the network: the aspect kept, multiples of its stride."""
    factor = min(max(1.0, SHORT_SIDE / min(size)), LONG_SIDE / max(size))
    width, height = (max(_STRIDE, round(side * factor / _STRIDE) * _STRIDE) for side in size)
    return width, height


def boxes_in(probabilities: Probabilities) -> list[Box]:
    """One grown box for each region that is probably text."""
    text = ndimage.binary_dilation(probabilities > _PIXEL_THRESHOLD)
    labels, _ = ndimage.label(text, structure=np.ones((3, 3)))
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[window] == number
        rows, columns = np.nonzero(region)
        corner = np.array([window[1].start, window[0].start])
        box = smallest_box(np.column_stack((columns, rows)) + corner + 0.5)
        sure = float(probabilities[window][region].mean()) >= _BOX_THRESHOLD
        if sure and min(box.width, box.height) >= _LEAST_SIDE:
            found.append(box.grown(_unclip_margin(box)))
    return found


def _unclip_margin(box: Box) -> float:
    return box.width * box.height * _UNCLIP_RATIO / (2 * (box.width + box.height))

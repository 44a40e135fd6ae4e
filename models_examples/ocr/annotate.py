"""Draws what was read: the picture with its boxes, and beside it the text where it was found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from boxes import Box
from PIL import Image, ImageDraw, ImageFont
from recognition import Reading

LEAST_WIDTH = 640
"""Smaller pictures are enlarged to this width, in pixels, so that the boxes can be told from the letters."""
_SURE, _DOUBTFUL, _INK = (0, 137, 123), (239, 108, 0), (33, 33, 33)
_SURE_FROM = 0.9
_TEXT_SHARE = 0.6
"""Height of letters as a share of their box's height."""
_INSET = 6
_LEAST_PIXELS = 6


def annotated(picture: Image.Image, lines: Sequence[tuple[Box, Reading]]) -> Image.Image:
    """The picture with boxes on the left, and a white page with the text at its places on the right."""
    factor = max(1.0, LEAST_WIDTH / picture.width)
    size = (round(picture.width * factor), round(picture.height * factor))
    canvas = Image.new("RGB", (2 * size[0], size[1]), "white")
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS))
    draw = ImageDraw.Draw(canvas)
    for box, reading in lines:
        large = box.scaled(np.array([factor, factor]))
        colour = _SURE if reading.confidence >= _SURE_FROM else _DOUBTFUL
        _outline(draw, large, colour, 0)
        _outline(draw, large, colour, size[0])
        _write(draw, large, reading.text, size[0])
    return canvas


def _outline(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], shift: int) -> None:
    corners = [(float(x) + shift, float(y)) for x, y in box.corners]
    draw.line([*corners, corners[0]], fill=colour, width=2, joint="curve")


def _write(draw: ImageDraw.ImageDraw, box: Box, text: str, shift: int) -> None:
    """The text from the left of its box, as large as fits; letters that the font lacks are shown as empty frames."""
    top_left, _, _, bottom_left = box.corners
    x, y = (top_left + bottom_left) / 2
    draw.text((float(x) + shift + _INSET, float(y)), text, font=_fitting_font(text, box), fill=_INK, anchor="lm")


def _fitting_font(text: str, box: Box) -> Any:
    pixels = max(_LEAST_PIXELS, round(box.height * _TEXT_SHARE))
    font = ImageFont.load_default(pixels)
    while pixels > _LEAST_PIXELS and font.getlength(text) > box.width - 2 * _INSET:
        pixels -= 1
        font = ImageFont.load_default(pixels)
    return font

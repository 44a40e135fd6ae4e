"""Draws the slice with the largest body: the CT alone, and beside it the same with the mask."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from segmentation import Mask
from series import Vector, Volume

WINDOW_CENTER_HU, WINDOW_WIDTH_HU = 50.0, 1500.0
PANEL_PIXELS = 512
"""The longer side of each of the two pictures."""
_CONTOUR_PIXELS = 3  # odd, as the filter asks for
_SMOOTH = 2  # drawn this many times larger, then reduced
_MARGIN, _LEGEND_HEIGHT, _FONT_PIXELS = 12, 44, 16
_FILL_OPACITY = 0.2
_COLOUR, _INK, _PAPER = (38, 198, 218), (236, 239, 241), (18, 24, 28)
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))

Picture = Image.Image


def draw_overlay(volume: Volume, mask: Mask) -> Picture:
    """Two panels and a legend, in true proportions (mm, not pixels)."""
    number = int(mask.sum(axis=(1, 2)).argmax())
    _, between_rows, between_columns = volume.spacing
    rows, columns = mask.shape[1:]
    per_mm = PANEL_PIXELS / max(rows * between_rows, columns * between_columns)
    size = (round(columns * between_columns * per_mm), round(rows * between_rows * per_mm))
    plain = _windowed(volume.hounsfield[number]).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    marked = _marked(plain, mask[number])
    for panel in (plain, marked):
        _write_directions(panel, volume.column_step, volume.row_step)
    canvas = Image.new("RGB", (2 * size[0] + 3 * _MARGIN, size[1] + _MARGIN + _LEGEND_HEIGHT), _PAPER)
    canvas.paste(plain, (_MARGIN, _MARGIN))
    canvas.paste(marked, (size[0] + 2 * _MARGIN, _MARGIN))
    area = float(mask[number].sum()) * between_rows * between_columns
    _write_legend(canvas, area, number + 1, mask.shape[0], per_mm)
    return canvas


def _windowed(hounsfield: npt.NDArray[np.float32]) -> Picture:
    low = WINDOW_CENTER_HU - WINDOW_WIDTH_HU / 2
    shade = np.clip((hounsfield - low) / WINDOW_WIDTH_HU, 0, 1) * 255
    return Image.fromarray(shade.astype(np.uint8))


def _marked(picture: Picture, mask: npt.NDArray[np.bool_]) -> Picture:
    """The picture with the mask as a translucent fill and a contour, whose steps are smoothed by half a pixel."""
    large = (picture.width * _SMOOTH, picture.height * _SMOOTH)
    area = Image.fromarray(mask.astype(np.uint8) * 255).resize(large, Image.Resampling.BICUBIC)
    area = area.filter(ImageFilter.GaussianBlur(0.6 * large[0] / mask.shape[1])).point([0] * 128 + [255] * 128)
    inner = area.filter(ImageFilter.MinFilter(_CONTOUR_PIXELS * _SMOOTH + 1))
    opacity = np.where(np.asarray(inner) > 0, _FILL_OPACITY, 1.0) * (np.asarray(area) > 0)
    alpha = Image.fromarray((opacity * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.BOX)
    return Image.composite(Image.new("RGB", picture.size, _COLOUR), picture, alpha)


def _font(pixels: int = _FONT_PIXELS) -> Any:
    return ImageFont.load_default(pixels)


def _direction(step: Vector) -> tuple[str, str]:
    """The patient's sides that a step leads to and comes from, such as ('L', 'R')."""
    axis = int(np.abs(step).argmax())
    towards, away = _LETTERS[axis]
    return (towards, away) if step[axis] > 0 else (away, towards)


def _write_directions(panel: Picture, column_step: Vector, row_step: Vector) -> None:
    right, left = _direction(column_step)
    bottom, top = _direction(row_step)
    draw = ImageDraw.Draw(panel)
    middle_x, middle_y, inset = panel.width // 2, panel.height // 2, 6
    for letter, place, anchor in (
        (left, (inset, middle_y), "lm"),
        (right, (panel.width - inset, middle_y), "rm"),
        (top, (middle_x, inset), "mt"),
        (bottom, (middle_x, panel.height - inset), "mb"),
    ):
        draw.text(place, letter, font=_font(), fill=_INK, anchor=anchor, stroke_width=2, stroke_fill=_PAPER)


def _write_legend(canvas: Picture, area_mm2: float, number: int, count: int, per_mm: float) -> None:
    draw = ImageDraw.Draw(canvas)
    y = canvas.height - _LEGEND_HEIGHT // 2
    bar_mm = _round_length(PANEL_PIXELS / per_mm / 4)
    bar_end = _MARGIN + round(bar_mm * per_mm)
    draw.line((_MARGIN, y, bar_end, y), fill=_INK, width=2)
    for x in (_MARGIN, bar_end):
        draw.line((x, y - 5, x, y + 5), fill=_INK, width=2)
    window = f"{bar_mm:g} mm     slice {number} of {count}     window {WINDOW_CENTER_HU:g} / {WINDOW_WIDTH_HU:g} HU"
    draw.text((bar_end + _MARGIN, y), window, font=_font(), fill=_INK, anchor="lm")
    swatch = canvas.width // 2 + _MARGIN // 2
    draw.rectangle((swatch, y - 8, swatch + 22, y + 8), fill=_mixed(_COLOUR, _FILL_OPACITY), outline=_COLOUR, width=3)
    text = f"body, {area_mm2 / 100:.1f} sq cm in this slice"
    draw.text((swatch + 32, y), text, font=_font(), fill=_INK, anchor="lm")


def _mixed(colour: tuple[int, int, int], opacity: float) -> tuple[int, ...]:
    return tuple(round(c * opacity + p * (1 - opacity)) for c, p in zip(colour, _PAPER, strict=True))


def _round_length(millimetres: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … that fits."""
    power = 10.0 ** np.floor(np.log10(millimetres))
    return float(max(step * power for step in (1, 2, 5) if step * power <= millimetres))

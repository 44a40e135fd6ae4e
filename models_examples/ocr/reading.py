"""Reads the text in one picture, for the program and for the endpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from boxes import Box, in_lines
from detection import Detector
from PIL import Image, ImageOps, UnidentifiedImageError
from recognition import Reading, Recogniser

LEAST_CONFIDENCE = 0.5
"""What is read with less is left out: mostly lines and stains taken for letters."""


class PictureError(Exception):
    """The input is no picture that can be read; the message says what to send instead."""


@dataclass(frozen=True)
class Line:
    """One box of text, and the number of the line that it stands on."""

    number: int
    box: Box
    reading: Reading


def read_picture(source: Path | IO[bytes], name: str) -> Image.Image:
    """The picture as RGB, turned as its camera was held; errors call it by the name.

    Raises
    ------
    PictureError
        It is none, is damaged, or is larger than any picture should be.
    """
    try:
        with Image.open(source) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is of no kind of picture that can be read; send it as a PNG file.") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{name} cannot be read ({error}); send it as a sound PNG file.") from error


def read_lines(picture: Image.Image, detector: Detector, recogniser: Recogniser) -> list[Line]:
    """All text in the picture, in reading order."""
    found = [
        Line(number, box, recogniser.read(picture, box))
        for number, boxes in enumerate(in_lines(detector.find(picture)))
        for box in boxes
    ]
    return [line for line in found if line.reading.confidence >= LEAST_CONFIDENCE]


def as_json(lines: list[Line]) -> dict[str, object]:
    """The text as a whole and box by box; corners run clockwise from the top left, in pixels (x, y)."""
    by_number: dict[int, list[str]] = {}
    for line in lines:
        by_number.setdefault(line.number, []).append(line.reading.text)
    return {
        "text": "\n".join(" ".join(parts) for parts in by_number.values()),
        "lines": [
            {
                "text": line.reading.text,
                "confidence": round(line.reading.confidence, 4),
                "box": line.box.corners.round(1).tolist(),
            }
            for line in lines
        ],
    }

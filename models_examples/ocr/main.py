"""Reads the text in pictures: writes ``text.json`` and, for each picture, a copy with the found lines marked."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from annotate import annotated
from boxes import Box, in_lines
from detection import Detector
from PIL import Image, ImageOps, UnidentifiedImageError
from recognition import Reading, Recogniser
from weights import WeightsError

INPUT_DIR = Path(os.environ.get("INPUT_DIR", "/input"))
OUTPUT_DIR = Path(os.environ.get("OUTPUT_DIR", "/output"))
MODEL_DIR = Path(os.environ.get("MODEL_DIR", "/model"))

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


def main() -> int:
    try:
        paths = find_pictures(INPUT_DIR)
        detector, recogniser = Detector(MODEL_DIR), Recogniser(MODEL_DIR)
        results = {}
        for path in paths:
            picture = read_picture(path)
            lines = read_lines(picture, detector, recogniser)
            name = path.relative_to(INPUT_DIR)
            target = OUTPUT_DIR / (f"{name}.annotated.png" if len(paths) > 1 else "annotated.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            annotated(picture, [(line.box, line.reading) for line in lines]).save(target, optimize=True)
            results[name.as_posix()] = as_json(lines)
    except (PictureError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 1
    (OUTPUT_DIR / "text.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def find_pictures(folder: Path) -> list[Path]:
    """The files in the folder and below that begin like a picture; there is at least one.

    Raises
    ------
    PictureError
        There is none.
    """
    pictures = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_picture(path)]
    if not pictures:
        raise PictureError("The input holds no picture; send a zip with PNG, JPEG or TIFF files.")
    return pictures


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except UnidentifiedImageError:
        return False
    except Image.DecompressionBombError:  # left to read_picture, which says so
        return True


def read_picture(path: Path) -> Image.Image:
    """The picture as RGB, turned as its camera was held.

    Raises
    ------
    PictureError
        It is damaged, or larger than any picture should be.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path.name} cannot be read ({error}); send it as a sound PNG file.") from error


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


if __name__ == "__main__":
    sys.exit(main())

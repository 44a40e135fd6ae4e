"""Reads the text in pictures: writes ``text.json`` and, for each picture, a copy with the found lines marked."""

import json
import os
import sys
from pathlib import Path

from annotate import annotated
from detection import Detector
from PIL import Image, UnidentifiedImageError
from reading import PictureError, as_json, read_lines, read_picture
from recognition import Recogniser
from weights import WeightsError

INPUT_DIR = Path(os.environ.get("INPUT_DIR", "/input"))
OUTPUT_DIR = Path(os.environ.get("OUTPUT_DIR", "/output"))
MODEL_DIR = Path(os.environ.get("MODEL_DIR", "/model"))


def main() -> int:
    try:
        paths = find_pictures(INPUT_DIR)
        detector, recogniser = Detector(MODEL_DIR), Recogniser(MODEL_DIR)
        results = {}
        for path in paths:
            picture = read_picture(path, path.name)
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


if __name__ == "__main__":
    sys.exit(main())

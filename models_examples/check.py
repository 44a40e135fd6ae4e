"""Judges the output of an example: ``python -m models_examples.check NAME SAMPLE.zip OUTPUT``.

The expected output is the folder ``expected`` of the example; an example without one gives back its input. Numbers may
differ by ``tolerance.toml``, masks in a few voxels, pictures in all but their size: other versions of the libraries,
other processors and other fonts are no mistake.
"""

import argparse
import gzip
import json
import math
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import InvalidRequest
from models_examples.build import folder_of

RELATIVE_TOLERANCE = 1e-6
LEAST_MASK_OVERLAP = 0.99
"""Dice coefficient."""
_AFFINE_TOLERANCE_MM = 1e-3

Tolerances = Mapping[str, float]
"""By JSON key, how far the numbers under it may lie apart; the innermost key counts."""


def check_output(folder: Path, sample: Path, output: Path) -> list[str]:
    """What is wrong with the output (a folder or a zip) that the model in ``folder`` made of the sample zip."""
    with tempfile.TemporaryDirectory(prefix="check-") as scratch:
        expected = folder / "expected"
        if not expected.is_dir():
            expected = _unpacked(sample, Path(scratch) / "expected")
        if not output.is_dir():
            output = _unpacked(output, Path(scratch) / "output")
        return compare(expected, output)


def _unpacked(archive: Path, target: Path) -> Path:
    target.mkdir()
    with zipfile.ZipFile(archive) as content:
        content.extractall(target)
    return target


def compare(expected: Path, output: Path) -> list[str]:
    """The differences between two folders, a sentence each; none when the output is as expected."""
    tolerances = _tolerances(expected.parent / "tolerance.toml")
    expected_names, names = _names_in(expected), _names_in(output)
    differences = [f"{name} is missing" for name in sorted(expected_names - names)]
    differences += [f"{name} was not expected" for name in sorted(names - expected_names)]
    for name in sorted(expected_names & names):
        if not name.endswith("/"):
            found = _compare_file(expected / name, output / name, tolerances)
            differences += [f"{name}: {difference}" for difference in found]
    return differences


def _names_in(folder: Path) -> set[str]:
    """Relative names of all files and folders; those of folders end with a slash."""
    return {f"{path.relative_to(folder).as_posix()}{'/' * path.is_dir()}" for path in folder.rglob("*")}


def _tolerances(path: Path) -> Tolerances:
    if not path.is_file():
        return {}
    absolute = tomllib.loads(path.read_text(encoding="utf-8"))["absolute"]
    return {str(key): float(value) for key, value in absolute.items()}


def _compare_file(expected: Path, actual: Path, tolerances: Tolerances) -> list[str]:
    match "".join(expected.suffixes[-2:]):
        case ".json":
            return _compare_json(expected, actual, tolerances)
        case ".nii.gz":
            return _compare_masks(expected, actual)
        case ".png":
            return _compare_pictures(expected, actual)
        case _:
            return [] if expected.read_bytes() == actual.read_bytes() else ["the bytes differ"]


def _compare_json(expected: Path, actual: Path, tolerances: Tolerances) -> list[str]:
    try:
        value = json.loads(actual.read_bytes())
    except ValueError as error:
        return [f"is not JSON ({error})"]
    return _compare_values(json.loads(expected.read_bytes()), value, "", 0.0, tolerances)


def _compare_values(expected: Any, actual: Any, place: str, absolute: float, tolerances: Tolerances) -> list[str]:
    """Differences below one place of a JSON document; ``absolute`` is what holds for the numbers there."""
    match expected, actual:
        case dict(), dict():
            if expected.keys() != actual.keys():
                return [f"{place or 'top'} has the keys {sorted(actual)}, not {sorted(expected)}"]
            pairs = [
                (expected[key], actual[key], f"{place}.{key}".lstrip("."), tolerances.get(key, absolute))
                for key in expected
            ]
        case list(), list():
            if len(expected) != len(actual):
                return [f"{place} has {len(actual)} entries, not {len(expected)}"]
            pairs = [
                (a, b, f"{place}[{number}]", absolute)
                for number, (a, b) in enumerate(zip(expected, actual, strict=True))
            ]
        case (int() | float(), int() | float()) if not isinstance(expected, bool) and not isinstance(actual, bool):
            near = math.isclose(expected, actual, rel_tol=RELATIVE_TOLERANCE, abs_tol=absolute)
            return [] if near else [f"{place} is {actual}, not {expected}"]
        case _:
            same = type(expected) is type(actual) and expected == actual
            return [] if same else [f"{place} is {actual!r}, not {expected!r}"]
    return [difference for pair in pairs for difference in _compare_values(*pair, tolerances)]


def _compare_masks(expected_path: Path, actual_path: Path) -> list[str]:
    import nibabel
    import numpy as np

    try:
        actual = nibabel.Nifti1Image.from_bytes(gzip.decompress(actual_path.read_bytes()))
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError) as error:
        return [f"is not NIfTI ({error})"]
    expected = nibabel.Nifti1Image.from_bytes(gzip.decompress(expected_path.read_bytes()))
    if expected.shape != actual.shape:
        return [f"has the shape {actual.shape}, not {expected.shape}"]
    differences = []
    if not np.allclose(expected.affine, actual.affine, atol=_AFFINE_TOLERANCE_MM):
        differences.append(f"lies elsewhere in the patient: affine {actual.affine.tolist()}")
    first, second = (np.asanyarray(image.dataobj) > 0 for image in (expected, actual))
    overlap = 2 * int((first & second).sum()) / max(1, int(first.sum() + second.sum()))
    if overlap < LEAST_MASK_OVERLAP:
        differences.append(f"overlaps the expected mask by {overlap:.3f} only")
    return differences


def _compare_pictures(expected_path: Path, actual_path: Path) -> list[str]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(actual_path) as picture:
            picture.load()
            actual = (picture.format, picture.size, picture.mode)
    except (UnidentifiedImageError, OSError) as error:
        return [f"is not a picture ({error})"]
    with Image.open(expected_path) as picture:
        expected = (picture.format, picture.size, picture.mode)
    return [] if actual == expected else [f"is {actual}, not {expected}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the differences; exit code 1 when there are any, 2 when there was nothing to compare."""
    parser = argparse.ArgumentParser(prog="python -m models_examples.check", description="Judge an example's output.")
    parser.add_argument("name", metavar="NAME", help="the example, by folder name or id")
    parser.add_argument("sample", metavar="SAMPLE.zip", type=Path, help="the input that the model got")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="its output, a zip or a folder")
    options = parser.parse_args(arguments)
    try:
        differences = check_output(folder_of(options.name), options.sample, options.output)
    except (InvalidRequest, OSError, zipfile.BadZipFile) as error:
        print(error, file=sys.stderr)
        return 2
    for difference in differences:
        print(difference)
    if not differences:
        print(f"{options.name}: as expected")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())

"""Reads DICOM files into one volume of Hounsfield units with its place in the patient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

AIR_HU = -1024.0
"""Given to pixels that the scanner left empty (PixelPaddingValue)."""
_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 0.02
"""How much the gaps between slices may differ, as a share of their median."""
_NEEDED = (
    "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "PixelData",
    "SeriesInstanceUID",
)  # fmt: skip

Vector = npt.NDArray[np.float64]


class SeriesError(Exception):
    """The input is not one readable CT series; the message says what was found instead."""


@dataclass(frozen=True)
class Slice:
    """One DICOM image and the file that it came from."""

    path: Path
    dataset: Dataset


@dataclass(frozen=True)
class Volume:
    """A CT series. ``hounsfield`` is indexed (slice, row, column); vectors are in the patient's LPS axes, in mm."""

    hounsfield: npt.NDArray[np.float32]
    paths: tuple[Path, ...]
    origin: Vector
    column_step: Vector
    """From one column to the next."""
    row_step: Vector
    """From one row to the next."""
    slice_step: Vector

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of slices, rows and columns in mm, in the order of the array."""
        steps = (self.slice_step, self.row_step, self.column_step)
        between_slices, between_rows, between_columns = (float(np.linalg.norm(step)) for step in steps)
        return between_slices, between_rows, between_columns

    @property
    def affine_ras(self) -> npt.NDArray[np.float64]:
        """NIfTI's matrix from (column, row, slice) to mm in RAS axes; DICOM's LPS differs in two signs."""
        affine = np.eye(4)
        affine[:3] = np.column_stack((self.column_step, self.row_step, self.slice_step, self.origin))
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def read_series(folder: Path) -> Volume:
    """The one CT series in the folder and its subfolders; files that are no CT image are passed over.

    Raises
    ------
    SeriesError
        There is none, or more than one, or it does not make a regular volume.
    """
    images = [Slice(path, dataset) for path, dataset in _dicom_files(folder) if "PixelData" in dataset]
    if not images:
        raise SeriesError("The input holds no DICOM image; send a zip with the DICOM files of one CT series.")
    slices = [image for image in images if image.dataset.get("Modality") == "CT"]
    if not slices:
        found = ", ".join(sorted({str(image.dataset.get("Modality", "unknown")) for image in images}))
        raise SeriesError(f"The input holds DICOM images, but none of a CT (found: {found}); send one CT series.")
    for image in slices:
        _check_complete(image)
    if len({image.dataset.SeriesInstanceUID for image in slices}) > 1:
        raise SeriesError("The input holds CT images of more than one series; send one series per task.")
    return _stack(slices)


def _dicom_files(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            yield path, pydicom.dcmread(path)
        except InvalidDicomError:
            continue


def _check_complete(image: Slice) -> None:
    missing = [name for name in _NEEDED if name not in image.dataset]
    if missing:
        raise SeriesError(f"{image.path.name} lacks {', '.join(missing)}, without which nothing can be measured in it.")
    if image.dataset.get("NumberOfFrames", 1) > 1 or image.dataset.get("SamplesPerPixel", 1) != 1:
        raise SeriesError(f"{image.path.name} holds several frames or colours; send one grey image per file.")


def _stack(slices: Sequence[Slice]) -> Volume:
    """Order the slices along the normal of the first and check that they lie on a regular grid."""
    first = slices[0].dataset
    across, down = np.reshape([float(v) for v in first.ImageOrientationPatient], (2, 3))
    normal = np.cross(across, down)
    between_rows, between_columns = (float(v) for v in first.PixelSpacing)
    for image in slices:
        _check_same_grid(image, first)
    ordered = sorted(slices, key=lambda image: float(_position(image) @ normal))
    return Volume(
        hounsfield=np.stack([_hounsfield(image) for image in ordered]),
        paths=tuple(image.path for image in ordered),
        origin=_position(ordered[0]),
        column_step=across * between_columns,
        row_step=down * between_rows,
        slice_step=_slice_step(ordered, normal),
    )


def _position(image: Slice) -> Vector:
    """Centre of the first pixel, LPS, in mm."""
    return np.array([float(v) for v in image.dataset.ImagePositionPatient])


def _check_same_grid(image: Slice, first: Dataset) -> None:
    same_size = (image.dataset.Rows, image.dataset.Columns) == (first.Rows, first.Columns)
    same_directions = all(
        np.allclose(image.dataset.get(name), first.get(name), atol=_DIRECTION_TOLERANCE)
        for name in ("ImageOrientationPatient", "PixelSpacing")
    )
    if not (same_size and same_directions):
        raise SeriesError(f"{image.path.name} differs from the series in size, spacing or direction.")


def _slice_step(ordered: Sequence[Slice], normal: Vector) -> Vector:
    """From one slice to the next; a single slice has its thickness."""
    if len(ordered) == 1:
        return normal * float(ordered[0].dataset.get("SliceThickness") or 1.0)
    positions = np.array([_position(image) for image in ordered])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    for image, gap in zip(ordered[1:], gaps, strict=True):
        if usual <= 0 or abs(gap - usual) > _SPACING_TOLERANCE * usual:
            raise SeriesError(
                f"{image.path.name} lies {gap:.2f} mm from the slice before it, the others {usual:.2f} mm; "
                "look for a slice that is missing or was sent twice."
            )
    step: Vector = (positions[-1] - positions[0]) / (len(ordered) - 1)
    return step


def _hounsfield(image: Slice) -> npt.NDArray[np.float32]:
    try:
        stored = image.dataset.pixel_array
    except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SeriesError(f"{image.path.name}: cannot read the pixels ({reason}); send it uncompressed.") from error
    values = stored.astype(np.float32) * float(image.dataset.RescaleSlope) + float(image.dataset.RescaleIntercept)
    padding = image.dataset.get("PixelPaddingValue")
    return np.asarray(values if padding is None else np.where(stored == padding, AIR_HU, values), dtype=np.float32)

"""What was measured, as plain values for ``report.json``."""

import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from segmentation import Mask
from series import Volume

PERCENTILES = (5, 25, 50, 75, 95)
_DECIMALS = 4


def make_report(volume: Volume, mask: Mask, input_folder: Path) -> dict[str, Any]:
    """Size, place and density of the body. The files are named by path and hash; nothing of the patient is repeated."""
    between_slices, between_rows, between_columns = volume.spacing
    pixel_area = between_rows * between_columns
    voxels_per_slice = mask.sum(axis=(1, 2))
    return {
        "slices": [
            {
                "file": path.relative_to(input_folder).as_posix(),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "body_voxels": int(voxels),
                "body_area_mm2": round(float(voxels) * pixel_area, _DECIMALS),
            }
            for path, voxels in zip(volume.paths, voxels_per_slice, strict=True)
        ],
        "body": {
            "voxels": int(mask.sum()),
            "volume_mm3": round(float(mask.sum()) * pixel_area * between_slices, _DECIMALS),
            "hounsfield": _statistics(volume.hounsfield[mask]),
            "cut_off_at": _edges_reached(mask),
        },
        "geometry": {
            "columns_rows_slices": list(mask.shape[::-1]),
            "spacing_mm": [round(v, _DECIMALS) for v in (between_columns, between_rows, between_slices)],
            "axes": "".join(nibabel.aff2axcodes(volume.affine_ras)),
            "affine_ras_mm": volume.affine_ras.round(_DECIMALS).tolist(),
        },
    }


def _statistics(values: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, float]:
    exact = values.astype(np.float64)
    named = {"mean": exact.mean(), "std": exact.std(), "min": exact.min(), "max": exact.max()}
    named |= {f"p{p}": value for p, value in zip(PERCENTILES, np.percentile(exact, PERCENTILES), strict=True)}
    return {name: round(float(value), _DECIMALS) for name, value in named.items()}


def _edges_reached(mask: Mask) -> list[str]:
    """The edges of the picture that the body runs into: there, the areas are those of the visible part."""
    edges = {"left": mask[:, :, 0], "right": mask[:, :, -1], "top": mask[:, 0, :], "bottom": mask[:, -1, :]}
    return [name for name, pixels in edges.items() if pixels.any()]

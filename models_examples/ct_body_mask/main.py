"""Marks the body in a CT series: reads DICOM, writes ``body_mask.nii.gz``, ``report.json`` and ``overlay.png``."""

import json
import os
import sys
from pathlib import Path

import nibabel
import numpy as np
from overlay import draw_overlay
from report import make_report
from segmentation import Mask, NoBodyError, segment_body
from series import SeriesError, Volume, read_series

INPUT_DIR = Path(os.environ.get("INPUT_DIR", "/input"))
OUTPUT_DIR = Path(os.environ.get("OUTPUT_DIR", "/output"))


def main() -> int:
    try:
        volume = read_series(INPUT_DIR)
        mask = segment_body(volume.hounsfield, volume.spacing)
    except (SeriesError, NoBodyError) as error:
        print(error, file=sys.stderr)
        return 1
    write_mask(volume, mask, OUTPUT_DIR / "body_mask.nii.gz")
    report = make_report(volume, mask, INPUT_DIR)
    (OUTPUT_DIR / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw_overlay(volume, mask).save(OUTPUT_DIR / "overlay.png", optimize=True)
    print(f"{len(volume.paths)} slice(s), {report['body']['voxels']} voxels of body")
    return 0


def write_mask(volume: Volume, mask: Mask, target: Path) -> None:
    """Write the mask as NIfTI, whose arrays run (column, row, slice) and whose axes are RAS, in mm."""
    image = nibabel.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), volume.affine_ras)
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine_ras, code="scanner")
    image.set_sform(volume.affine_ras, code="scanner")
    nibabel.save(image, target)


if __name__ == "__main__":
    sys.exit(main())

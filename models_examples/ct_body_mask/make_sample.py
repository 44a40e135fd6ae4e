"""Writes a zip with the CT slice that comes with pydicom: ``python make_sample.py OUT.zip``."""

import argparse
import zipfile
from pathlib import Path

from pydicom.data import get_testdata_file

SAMPLE = "CT_small.dcm"


def write_sample(target: Path) -> None:
    """Write the sample; nothing is downloaded, the file is part of the package."""
    source = get_testdata_file(SAMPLE, download=False)
    if source is None:
        raise SystemExit(f"This pydicom comes without {SAMPLE}; install it anew with: pip install pydicom")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(str(source), SAMPLE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, metavar="OUT.zip")
    write_sample(parser.parse_args().target)

"""Writes a zip with the photographed page that comes with scikit-image: ``python make_sample.py OUT.zip``."""

import argparse
import zipfile
from pathlib import Path

from package_files import read_package_files

PACKAGE = "scikit-image==0.26.0"
PAGE = "skimage/data/page.png"


def write_sample(target: Path) -> None:
    """Write the sample; the same bytes each time."""
    page = read_package_files(PACKAGE, [PAGE])[PAGE]
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("page.png"), page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, metavar="OUT.zip")
    write_sample(parser.parse_args().target)

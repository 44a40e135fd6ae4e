"""Writes a small input zip with what archives tend to lose: ``python make_sample.py OUT.zip``."""

import argparse
import zipfile
from pathlib import Path

FILES = {
    "hello.txt": b"Hello, model!\n",
    "nested/folder/table.csv": b"name,value\r\nalpha,1\r\nbeta,2\r\n",
    "nested/größe 体.txt": b"Names may hold any letter, and spaces.\n",
    "every_byte.bin": bytes(range(256)) * 16,
    "no_bytes.dat": b"",
}
EMPTY_FOLDERS = ("empty_folder/", "nested/empty/")


def write_sample(target: Path) -> None:
    """Write the sample; the same bytes each time."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in EMPTY_FOLDERS:
            archive.writestr(zipfile.ZipInfo(name), b"")
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, metavar="OUT.zip")
    write_sample(parser.parse_args().target)

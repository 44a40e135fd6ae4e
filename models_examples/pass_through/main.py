"""Copies the input folder to the output folder: names, bytes, folders and empty folders."""

import os
import shutil
from pathlib import Path

INPUT_DIR = Path(os.environ.get("INPUT_DIR", "/input"))
OUTPUT_DIR = Path(os.environ.get("OUTPUT_DIR", "/output"))


def main() -> None:
    for source in sorted(INPUT_DIR.rglob("*")):  # a folder comes before what is in it
        target = OUTPUT_DIR / source.relative_to(INPUT_DIR)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(source, target)


if __name__ == "__main__":
    main()

"""Writes the model zip, the weights of two PP-OCRv4 networks: ``python make_content.py OUT.zip``.

They come with the package rapidocr-onnxruntime (Apache-2.0), of which nothing is imported.
"""

import argparse
import zipfile
from pathlib import Path

from package_files import read_package_files

PACKAGE = "rapidocr-onnxruntime==1.4.4"
NETWORKS = {
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": "detector.onnx",
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": "recogniser.onnx",
}


def write_content(target: Path) -> None:
    """Write the model zip; the same bytes each time, so that it has one hash."""
    weights = read_package_files(PACKAGE, list(NETWORKS))
    with zipfile.ZipFile(target, "w") as archive:
        for path, name in NETWORKS.items():
            archive.writestr(zipfile.ZipInfo(name), weights[path], compress_type=zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, metavar="OUT.zip")
    write_content(parser.parse_args().target)

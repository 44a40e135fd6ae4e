"""Takes out of installed packages what no service runs: ``python deployment/slimming.py FOLDER``.

Tests, type stubs, C sources and build tools go, and of compiled modules the tables of debuggers: uvloop's wheel alone
carries 11 MB of them. ``strip`` would do the latter, but slim base images have none and a build without a network
cannot install it.
"""

import os
import shutil
import struct
import sys
from pathlib import Path

_TEST_FOLDERS = frozenset({"test", "tests", "testing"})
_TEST_MODULES = ("conftest.py", "_simd.*.so", "*_tests.*.so")
"""The compiled ones are numpy's: what its tests look into itself with."""
_SOURCES = frozenset({".a", ".c", ".cc", ".h", ".proto", ".pxd", ".pxi", ".pyi", ".pyx"})
_TOOLS = (
    "numpy/distutils",
    "numpy/f2py",
    "onnx/backend",
    "onnx/frontend",
    "onnx/fuzz",
    "onnx/reference",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
"""Parts of packages that make or change models, or build extensions; whoever serves a model imports none."""

_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SEGMENT_TABLE = struct.Struct("<32xQ14xHH")
"""Of the ELF header: the offset of the program headers, the size of one, their number (System V ABI, chapter 4)."""
_SEGMENT = struct.Struct("<8xQ16xQ")
"""Of a program header: the offset of the segment in the file and its size there."""
_SECTION_TABLE_OFFSET = 0x28
_SECTION_TABLE_NUMBERS = 0x3C


def slim(packages: Path) -> None:
    """Remove it all, below this folder of packages."""
    for tool in _TOOLS:
        for unused in list(packages.rglob(tool)):
            shutil.rmtree(unused)
    for folder, names, files in os.walk(packages):
        for name in _TEST_FOLDERS.intersection(names):
            shutil.rmtree(Path(folder, name))
            names.remove(name)
        for path in (Path(folder, name) for name in files):
            if path.suffix in _SOURCES or any(path.match(pattern) for pattern in _TEST_MODULES):
                path.unlink()
            elif ".so" in path.suffixes:
                drop_sections(path)


def drop_sections(library: Path) -> None:
    """Cut off what lies behind the last segment of a shared library: sections that linkers and debuggers read.

    The dynamic loader goes by segments alone. Files of other formats stay as they are.
    """
    content = library.read_bytes()
    if not content.startswith(_ELF64_LITTLE_ENDIAN):
        return
    table, size, number = _SEGMENT_TABLE.unpack_from(content)
    end = table + size * number
    for index in range(number):
        offset, length = _SEGMENT.unpack_from(content, table + size * index)
        end = max(end, offset + length)
    kept = bytearray(content[:end])
    struct.pack_into("<Q", kept, _SECTION_TABLE_OFFSET, 0)
    struct.pack_into("<HH", kept, _SECTION_TABLE_NUMBERS, 0, 0)
    library.write_bytes(kept)


if __name__ == "__main__":
    slim(Path(sys.argv[1]))

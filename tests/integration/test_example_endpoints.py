"""The page reader as an endpoint: the same lines as the program's, from networks that stay in memory."""

import ast
import base64
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models_examples.build import ROOT
from models_examples.check import compare
from online_gateway.endpoint_config import read_gateway_file
from online_worker.engines.base import LoadedModel
from tests.support.endpoint_calls import asked, example_endpoint, refused
from tests.support.requirements import missing

OCR = ROOT / "ocr"


def written_by(script: str, target: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-B", str(OCR / script), str(target)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "cannot be downloaded" in done.stderr:
        missing(done.stderr)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A photographed page."""
    with zipfile.ZipFile(written_by("make_sample.py", tmp_path_factory.mktemp("sample") / "sample.zip")) as sample:
        return sample.read("page.png")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip with the networks."""
    return written_by("make_content.py", tmp_path_factory.mktemp("content") / "content.zip")


@pytest.fixture(scope="module")
def reader(content: Path) -> Iterator[LoadedModel]:
    loaded = example_endpoint("ocr", content)
    yield loaded
    loaded.close()


def image(picture: bytes) -> dict[str, Any]:
    return {"image": base64.b64encode(picture).decode("ascii")}


def test_the_endpoint_reads_the_lines_that_the_program_reads(reader: LoadedModel, page: bytes, tmp_path: Path) -> None:
    (tmp_path / "expected").mkdir()
    (tmp_path / "output").mkdir()
    shutil.copy(OCR / "expected" / "text.json", tmp_path / "expected")
    shutil.copy(OCR / "tolerance.toml", tmp_path)

    answers = [asked(reader, image(page)) for _ in range(2)]

    (tmp_path / "output" / "text.json").write_text(json.dumps({"page.png": answers[0]}))
    assert compare(tmp_path / "expected", tmp_path / "output") == []
    assert answers[1] == answers[0]


def test_the_networks_come_from_the_package_where_none_were_installed(
    reader: LoadedModel, content: Path, page: bytes
) -> None:
    assert content.is_file(), "so the package can be had"

    loaded = example_endpoint("ocr", None)

    assert asked(loaded, image(page)) == asked(reader, image(page))


def test_an_empty_sheet_has_no_lines(reader: LoadedModel) -> None:
    sheet = io.BytesIO()
    Image.new("L", (300, 200), 255).save(sheet, "PNG")

    assert asked(reader, image(sheet.getvalue())) == {"text": "", "lines": []}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({}, 'Send {"image": a picture\'s bytes in base64}.'),
        ({"image": 5}, "bytes in base64"),
        ({"image": "no base64!"}, "is not base64"),
        ({"image": ""}, "is of no kind of picture"),
        (image(b"Dear colleague"), "The image is of no kind of picture that can be read; send it as a PNG file."),
    ],
)
def test_what_is_no_picture_is_refused(document: dict[str, Any], why: str, reader: LoadedModel) -> None:
    assert why in refused(reader, document)


def test_a_picture_cut_short_is_refused(reader: LoadedModel, page: bytes) -> None:
    assert "The image cannot be read" in refused(reader, image(page[:20_000]))


@pytest.mark.parametrize("damage", ["no_zip", "without_one", "no_network"])
def test_content_without_the_networks_is_refused(damage: str, content: Path, tmp_path: Path) -> None:
    path = tmp_path / "content.zip"
    with zipfile.ZipFile(content) as whole, zipfile.ZipFile(path, "w") as damaged:
        damaged.writestr("detector.onnx", whole.read("detector.onnx"))
        if damage == "no_network":
            damaged.writestr("recogniser.onnx", b"not a network")
    if damage == "no_zip":
        path.write_bytes(b"no zip")

    with pytest.raises(Exception, match=r"make_content\.py|make the content zip anew") as refusal:
        example_endpoint("ocr", path)

    assert type(refusal.value).__name__ == "WeightsError"


def test_the_file_of_endpoints_names_what_is_there() -> None:
    file = read_gateway_file(ROOT / "endpoints.json")

    named = {endpoint.name: endpoint for endpoint in file.endpoints}
    assert named.keys() == {"modelhost", "iris", "ocr", "vector_sum", "echo"}
    paths = [path for endpoint in file.endpoints for path in (endpoint.module, endpoint.content) if path]
    assert paths
    assert [path for path in paths if not (file.folder / path).is_file()] == []
    assert {name: endpoint.engine for name, endpoint in named.items() if endpoint.engine != "python"} == {
        "modelhost": "onnx",
        "iris": "onnx",
        "echo": "echo",
    }
    assert (named["modelhost"].local_workers, named["vector_sum"].local_workers) == (2, 2)


def imported_by(folder: Path) -> set[str]:
    """The packages of others that the modules of an example import."""
    trees = [ast.parse(path.read_text()) for path in folder.glob("*.py")]
    names = [
        name.partition(".")[0]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    ]
    ours = {path.stem for path in folder.glob("*.py")} | {"online_worker"}
    return set(names) - ours - set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", ["ocr", "vector_sum"])
def test_the_file_of_endpoints_says_what_each_one_must_have_installed(name: str) -> None:
    endpoints = {endpoint.name: endpoint for endpoint in read_gateway_file(ROOT / "endpoints.json").endpoints}

    assert set(endpoints[name].config["REQUIRES"]) == imported_by(ROOT / name)

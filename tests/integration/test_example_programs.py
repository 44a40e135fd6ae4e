"""The example models: each program on its sample, as a plain process and in its image, and the judge of their output."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import docker
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from contracts.model_file import ModelFile
from models_examples.build import example_folders, folder_of
from models_examples.build import main as build_main
from models_examples.check import check_output, compare
from models_examples.check import main as check_main
from tests.support.requirements import missing

EXAMPLES = list(example_folders())
CT, OCR, PASS_THROUGH = folder_of("ct_body_mask"), folder_of("ocr"), folder_of("pass_through")


def run_script(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", str(script), *arguments],
        cwd=script.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_program(folder: Path, input_folder: Path, output: Path, model: Path) -> subprocess.CompletedProcess[str]:
    output.mkdir(exist_ok=True)
    return run_script(folder / "main.py", INPUT_DIR=str(input_folder), OUTPUT_DIR=str(output), MODEL_DIR=str(model))


def unpacked(archive: Path, target: Path) -> Path:
    with zipfile.ZipFile(archive) as content:
        content.extractall(target)
    return target


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().endswith((".", ")"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Path]:
    """The zip that an example's script writes, made once: ``made(folder, "make_sample.py")``."""
    kept: dict[tuple[Path, str], Path] = {}

    def make(folder: Path, script: str) -> Path:
        if (folder, script) not in kept:
            target = tmp_path_factory.mktemp("made") / f"{folder.name}.zip"
            done = run_script(folder / script, str(target))
            if "cannot be downloaded" in done.stderr:
                missing(done.stderr)
            assert done.returncode == 0, done.stderr
            kept[folder, script] = target
        return kept[folder, script]

    return make


@pytest.fixture(scope="session")
def model_content(
    made: Callable[[Path, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """The model folder as the program sees it; empty for an example without content."""

    def content(folder: Path) -> Path:
        target = tmp_path_factory.mktemp("model")
        script = ModelFile.load(folder).content_script
        return unpacked(made(folder, script), target) if script else target

    return content


@pytest.fixture
def sample(made: Callable[[Path, str], Path]) -> Callable[[Path], Path]:
    return lambda folder: made(folder, "make_sample.py")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_turns_its_sample_into_the_expected_output(
    name: str, sample: Callable[[Path], Path], model_content: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = folder_of(name)
    input_folder = unpacked(sample(folder), tmp_path / "input")

    done = run_program(folder, input_folder, tmp_path / "output", model_content(folder))

    assert done.returncode == 0, done.stderr
    assert check_output(folder, sample(folder), tmp_path / "output") == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_image_does_the_same_without_network_capabilities_or_root(
    name: str,
    example_image: Callable[[str], str],
    image_engine: docker.DockerClient,
    sample: Callable[[Path], Path],
    model_content: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    folder = folder_of(name)
    tag = example_image(name)
    places = {"/input": unpacked(sample(folder), tmp_path / "in"), "/model": model_content(folder)}
    places["/output"] = tmp_path / "out"
    places["/output"].mkdir(mode=0o777)
    for place in (tmp_path, *tmp_path.parents[:3], *places.values()):
        place.chmod(place.stat().st_mode | 0o055)
    places["/output"].chmod(0o777)

    image_engine.containers.run(
        tag,
        network_mode="none",
        cap_drop=["ALL"],
        read_only=True,
        remove=True,
        pids_limit=ModelFile.load(folder).limits.pids,
        mem_limit=ModelFile.load(folder).limits.memory_bytes,
        volumes={
            str(path): {"bind": place, "mode": "rw" if place == "/output" else "ro"} for place, path in places.items()
        },
    )

    assert check_output(folder, sample(folder), tmp_path / "out") == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_image_runs_the_registered_command_and_keeps_nothing_of_its_build(
    name: str, example_image: Callable[[str], str], image_engine: docker.DockerClient
) -> None:
    tag = example_image(name)
    image = image_engine.images.get(tag)

    files = image_engine.containers.run(tag, ["sh", "-c", "ls -d /app/* /build || true"], remove=True)

    config = image.attrs["Config"]
    assert config["Cmd"] == list(ModelFile.load(folder_of(name)).command)
    assert config["User"].split(":")[0] not in {"", "0", "root"}
    assert not [setting for setting in config["Env"] if "INDEX" in setting or "CERT" in setting]
    assert {Path(line).suffix for line in files.decode().split()} == {".py"}
    assert b"make_" not in files


@pytest.mark.parametrize("name", EXAMPLES)
def test_requirements_name_one_version_each(name: str) -> None:
    requirements = folder_of(name) / "requirements.txt"

    lines = requirements.read_text().split() if requirements.exists() else []

    assert all(line.count("==") == 1 for line in lines)
    assert bool(lines) == bool(ModelFile.load(folder_of(name)).requires)


def test_an_unknown_example_is_answered_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    code = build_main(["no-such-model"])

    assert code == 1
    assert "no-such-model" in capsys.readouterr().err


def test_an_engine_that_is_not_there_is_named_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "models_examples.build", "--engine", "unix:///no/such/engine.sock", "pass_through"],
        cwd=PASS_THROUGH.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert_refused(done, "No Docker engine answers")


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        ((), {"PATH": "/no/such/folder"}, "debootstrap is not installed"),
        (("--mirror", "http://127.0.0.1:9/mirror"), {}, "name a Debian mirror that this machine reaches"),
    ],
)
def test_a_base_image_that_cannot_be_made_says_what_to_do(
    arguments: tuple[str, ...], environment: dict[str, str], reason: str, image_engine: docker.DockerClient
) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        missing("the base image is made by debootstrap, as root")

    done = subprocess.run(
        [sys.executable, "-m", "models_examples.build", "--offline", "--rebuild-base", *arguments, "pass_through"],
        cwd=PASS_THROUGH.parent.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


# --- ct_body_mask ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ct_output(made: Callable[[Path, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    input_folder = unpacked(made(CT, "make_sample.py"), folder / "in")
    done = run_program(CT, input_folder, folder / "out", folder / "no-model")
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def ct_slice(made: Callable[[Path, str], Path], tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    return pydicom.dcmread(unpacked(made(CT, "make_sample.py"), tmp_path_factory.mktemp("slice")) / "CT_small.dcm")


def flooded(free: np.ndarray, starts: Iterable[tuple[int, int]]) -> np.ndarray:
    """The pixels that a walk in four directions reaches from the starts."""
    reached = np.zeros_like(free)
    to_visit = [start for start in starts if free[start]]
    while to_visit:
        row, column = to_visit.pop()
        if 0 <= row < free.shape[0] and 0 <= column < free.shape[1] and free[row, column] and not reached[row, column]:
            reached[row, column] = True
            to_visit += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return reached


def test_the_area_is_that_of_an_independent_flood_fill(ct_output: Path, ct_slice: FileDataset) -> None:
    hounsfield = ct_slice.pixel_array.astype(float) - 1024
    tissue = flooded(hounsfield > -400, [(64, 64)])
    size = range(128)
    border = [(r, c) for r in size for c in size if r in (0, 127) or c in (0, 127)]
    body = ~flooded(~tissue, border)

    reported = json.loads((ct_output / "report.json").read_text())

    area = reported["slices"][0]["body_area_mm2"]
    assert area == pytest.approx(body.sum() * 0.661468**2, rel=0.01)
    assert area == pytest.approx(reported["body"]["voxels"] * 0.661468**2, rel=1e-6)
    assert reported["body"]["hounsfield"]["mean"] == pytest.approx(hounsfield[body].mean(), abs=5)


def test_the_mask_holds_the_spine_and_not_the_lungs(ct_output: Path) -> None:
    mask = np.asanyarray(nibabel.Nifti1Image.from_filename(ct_output / "body_mask.nii.gz").dataobj)

    spine_column, spine_row = 60, 80
    lung_column, lung_row = 10, 20
    assert mask[spine_column, spine_row, 0] == 1
    assert mask[lung_column, lung_row, 0] == 0


def test_a_pixel_keeps_its_place_in_the_patient(ct_output: Path, ct_slice: FileDataset) -> None:
    column, row = 100, 30
    origin, spacing = ct_slice.ImagePositionPatient, ct_slice.PixelSpacing
    left = origin[0] + column * spacing[1]
    posterior = origin[1] + row * spacing[0]

    affine = nibabel.Nifti1Image.from_filename(ct_output / "body_mask.nii.gz").affine

    assert np.linalg.inv(affine) @ (-left, -posterior, origin[2], 1) == pytest.approx([column, row, 0, 1], abs=1e-4)


def test_nothing_of_the_patient_is_in_the_report(ct_output: Path, ct_slice: FileDataset) -> None:
    report = (ct_output / "report.json").read_text()

    assert str(ct_slice.SOPInstanceUID) not in report
    assert str(ct_slice.PatientID) not in report


TILT = np.radians(20)
ACROSS = (1.0, 0.0, 0.0)
DOWN = (0.0, float(np.cos(TILT)), float(np.sin(TILT)))
NORMAL = np.cross(ACROSS, DOWN)
GAP, BETWEEN_ROWS, BETWEEN_COLUMNS = 4.0, 2.0, 1.5


def write_phantom(folder: Path, template: FileDataset, numbers: Iterable[int]) -> None:
    """An oblique series: an elliptic body with two lungs, above a thin table; file names against the order."""
    rows, columns = np.mgrid[0:96, 0:128]
    y, x = (rows - 40) * BETWEEN_ROWS, (columns - 64) * BETWEEN_COLUMNS
    hounsfield = np.full(rows.shape, -1000)
    hounsfield[(x / 80) ** 2 + (y / 60) ** 2 <= 1] = 40
    for side in (-35, 35):
        hounsfield[((x - side) / 20) ** 2 + (y / 30) ** 2 <= 1] = -800
    hounsfield[82:84, 10:118] = 200
    folder.mkdir()
    for number in numbers:
        image = pydicom.dcmread(str(template.filename))
        image.Rows, image.Columns = rows.shape
        image.PixelData = (hounsfield + 1024).astype("<i2").tobytes()
        image.PixelSpacing = [BETWEEN_ROWS, BETWEEN_COLUMNS]
        image.ImageOrientationPatient = [*ACROSS, *DOWN]
        image.ImagePositionPatient = [float(v) for v in np.array([10.0, 20.0, 30.0]) + number * GAP * NORMAL]
        image.SOPInstanceUID = generate_uid()
        image.save_as(folder / f"{100 - number}.dcm")


def test_an_oblique_series_gives_a_volume_without_table_and_with_lungs(ct_slice: FileDataset, tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", ct_slice, range(3))
    (tmp_path / "in" / "notes.txt").write_text("not an image")

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    image = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "body_mask.nii.gz")
    mask = np.asanyarray(image.dataobj)
    assert [entry["file"] for entry in report["slices"]] == ["100.dcm", "99.dcm", "98.dcm"]
    assert report["slices"][1]["body_area_mm2"] == pytest.approx(np.pi * 80 * 60, rel=0.02)
    assert report["body"]["volume_mm3"] == pytest.approx(3 * GAP * np.pi * 80 * 60, rel=0.02)
    assert report["body"]["cut_off_at"] == []
    assert mask[64 + 23, 40, 1] == 1, "a lung belongs to the body"
    assert not mask[:, 80:, :].any(), "the table does not"
    last_pixel = np.array([10.0, 20.0, 30.0]) + 2 * GAP * NORMAL + 5 * BETWEEN_COLUMNS * np.array(ACROSS)
    last_pixel += 7 * BETWEEN_ROWS * np.array(DOWN)
    assert image.affine @ (5, 7, 2, 1) == pytest.approx([*(last_pixel * (-1, -1, 1)), 1], abs=1e-3)


def test_an_input_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "letter.txt").write_text("Dear colleague")

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert_refused(done, "no DICOM image")


def test_images_of_another_modality_are_refused_by_name(ct_slice: FileDataset, tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", ct_slice, [0])
    image = pydicom.dcmread(tmp_path / "in" / "100.dcm")
    image.Modality = "MR"
    image.save_as(tmp_path / "in" / "100.dcm")

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert_refused(done, "found: MR")


def test_a_missing_slice_is_named(ct_slice: FileDataset, tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", ct_slice, [0, 1, 2, 4])

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert_refused(done, "96.dcm lies 8.00 mm from the slice before it")


def test_two_series_are_refused(ct_slice: FileDataset, tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", ct_slice, [0, 1])
    image = pydicom.dcmread(tmp_path / "in" / "99.dcm")
    image.SeriesInstanceUID = generate_uid()
    image.save_as(tmp_path / "in" / "99.dcm")

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert_refused(done, "more than one series")


def test_an_image_cut_short_is_refused(ct_slice: FileDataset, tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", ct_slice, [0])
    image = pydicom.dcmread(tmp_path / "in" / "100.dcm")
    image.PixelData = image.PixelData[:1000]
    image.save_as(tmp_path / "in" / "100.dcm")

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert_refused(done, "100.dcm: cannot read the pixels")


def test_a_picture_of_air_has_no_body(ct_slice: FileDataset, tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", ct_slice, [0])
    image = pydicom.dcmread(tmp_path / "in" / "100.dcm")
    image.PixelData = bytes(len(image.PixelData))
    image.save_as(tmp_path / "in" / "100.dcm")

    done = run_program(CT, tmp_path / "in", tmp_path / "out", tmp_path)

    assert_refused(done, "No body was found")


# --- ocr -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ocr_model(model_content: Callable[[Path], Path]) -> Path:
    return model_content(OCR)


@pytest.fixture(scope="module")
def page(made: Callable[[Path, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(made(OCR, "make_sample.py"), tmp_path_factory.mktemp("page")) / "page.png"


def test_the_words_of_the_page_are_read_in_their_order(page: Path, ocr_model: Path, tmp_path: Path) -> None:
    done = run_program(OCR, page.parent, tmp_path / "out", ocr_model)

    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "text.json").read_text())["page.png"]
    lines = result["text"].splitlines()
    assert lines[0] == "Region-based segmentation"
    assert lines[1].startswith("Let us first determine markers of the coins")
    assert lines[4].endswith("two extreme parts of the")
    assert min(line["confidence"] for line in result["lines"]) > 0.8


def test_pictures_in_folders_and_turned_ones_are_each_read(page: Path, ocr_model: Path, tmp_path: Path) -> None:
    input_folder = tmp_path / "in"
    (input_folder / "nested").mkdir(parents=True)
    shutil.copy(page, input_folder / "nested" / "page.png")
    Image.open(page).convert("RGB").rotate(-7, expand=True, fillcolor="white").save(input_folder / "turned.jpg")

    done = run_program(OCR, input_folder, tmp_path / "out", ocr_model)

    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "text.json").read_text())
    assert "histogram of grey values" in results["nested/page.png"]["text"]
    assert "Region-based segmentation" in results["turned.jpg"]["text"]
    top_left, top_right, *_ = next(e for e in results["turned.jpg"]["lines"] if e["text"].startswith("Region"))["box"]
    angle = np.degrees(np.arctan2(top_right[1] - top_left[1], top_right[0] - top_left[0]))
    assert angle == pytest.approx(7, abs=2)
    assert (tmp_path / "out" / "nested" / "page.png.annotated.png").is_file()


def test_an_empty_sheet_has_no_text(ocr_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (300, 200), 255).save(tmp_path / "in" / "sheet.png")

    done = run_program(OCR, tmp_path / "in", tmp_path / "out", ocr_model)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "text.json").read_text()) == {"sheet.png": {"text": "", "lines": []}}


def test_the_networks_run_without_telemetry(page: Path, ocr_model: Path, tmp_path: Path) -> None:
    home, output = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    output.mkdir()
    folders = {"INPUT_DIR": str(page.parent), "OUTPUT_DIR": str(output), "MODEL_DIR": str(ocr_model)}

    subprocess.run(
        [sys.executable, "-B", str(OCR / "main.py")],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **folders},
        timeout=120,
        check=True,
    )

    assert list(home.rglob("*")) == [], "telemetry keeps its device id in the home folder"


def test_a_model_without_its_content_is_told_how_to_get_it(page: Path, tmp_path: Path) -> None:
    done = run_program(OCR, page.parent, tmp_path / "out", tmp_path / "no-model")

    assert_refused(done, "make_content.py")


def test_weights_that_are_no_network_are_refused(page: Path, ocr_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(ocr_model, model)
    (model / "recogniser.onnx").write_bytes(b"not a network")

    done = run_program(OCR, page.parent, tmp_path / "out", model)

    assert_refused(done, "recogniser.onnx is not a readable ONNX network")


def test_an_input_without_pictures_is_refused(ocr_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "letter.txt").write_text("Dear colleague")

    done = run_program(OCR, tmp_path / "in", tmp_path / "out", ocr_model)

    assert_refused(done, "no picture")


def test_a_picture_cut_short_is_refused_by_name(page: Path, ocr_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "half.png").write_bytes(page.read_bytes()[:20_000])

    done = run_program(OCR, tmp_path / "in", tmp_path / "out", ocr_model)

    assert_refused(done, "half.png cannot be read")


def test_the_content_is_made_without_importing_the_package(made: Callable[[Path, str], Path], tmp_path: Path) -> None:
    first = made(OCR, "make_content.py")
    program = (
        "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('make_content.py', run_name='__main__');"
        "print(sorted({'cv2', 'rapidocr_onnxruntime', 'onnxruntime'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(tmp_path / "again.zip")],
        cwd=OCR,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert done.stdout.strip() == "[]"
    first_hash, second_hash = (
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, tmp_path / "again.zip")
    )
    assert first_hash == second_hash, "the same content has the same hash"


# --- the judge -------------------------------------------------------------------------------------------------------


@pytest.fixture
def altered(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an example's expected output, to be changed."""
    return lambda name: Path(shutil.copytree(folder_of(name) / "expected", tmp_path / name))


def test_a_number_beyond_its_tolerance_is_a_difference(altered: Callable[[str], Path]) -> None:
    output = altered("ocr")
    document = json.loads((output / "text.json").read_text())
    document["page.png"]["lines"][0]["box"][0][0] += 1.0
    document["page.png"]["lines"][1]["confidence"] -= 0.2
    (output / "text.json").write_text(json.dumps(document))

    differences = compare(OCR / "expected", output)

    assert len(differences) == 1
    assert "lines[1].confidence" in differences[0]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda mask, affine: (mask, affine @ np.diag([1, 1, 2, 1])), "lies elsewhere"),
        (lambda mask, affine: (np.roll(mask, 2, axis=0), affine), "overlaps"),
        (lambda mask, affine: (mask[:-1], affine), "shape"),
    ],
)
def test_a_mask_of_another_place_shape_or_extent_is_a_difference(
    altered: Callable[[str], Path],
    change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    difference: str,
) -> None:
    output = altered("ct_body_mask")
    path = output / "body_mask.nii.gz"
    original = nibabel.Nifti1Image.from_filename(CT / "expected" / "body_mask.nii.gz")
    mask, affine = change(np.asanyarray(original.dataobj), original.affine)
    nibabel.save(nibabel.Nifti1Image(mask, affine), path)

    differences = compare(CT / "expected", output)

    assert len(differences) == 1
    assert difference in differences[0]


def test_files_that_are_not_what_their_names_say_are_differences(altered: Callable[[str], Path]) -> None:
    output = altered("ct_body_mask")
    for path in output.iterdir():
        path.write_bytes(b"nonsense")

    differences = compare(CT / "expected", output)

    assert [difference.split(":")[0] for difference in differences] == [
        "body_mask.nii.gz",
        "overlay.png",
        "report.json",
    ]


def test_a_picture_of_another_size_is_a_difference(altered: Callable[[str], Path]) -> None:
    output = altered("ocr")
    Image.new("RGB", (10, 10)).save(output / "annotated.png")

    differences = compare(OCR / "expected", output)

    assert len(differences) == 1
    assert "(10, 10)" in differences[0]


def test_a_lost_empty_folder_and_a_changed_byte_are_differences(
    sample: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = unpacked(sample(PASS_THROUGH), tmp_path / "out")
    (output / "empty_folder").rmdir()
    (output / "hello.txt").write_bytes(b"Hello, Model!\n")
    (output / "more.txt").touch()

    code = check_main(["pass_through", str(sample(PASS_THROUGH)), str(output)])

    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "empty_folder/ is missing",
        "more.txt was not expected",
        "hello.txt: the bytes differ",
    ]


def test_an_output_zip_is_judged_like_a_folder(sample: Callable[[Path], Path]) -> None:
    assert check_output(PASS_THROUGH, sample(PASS_THROUGH), sample(PASS_THROUGH)) == []

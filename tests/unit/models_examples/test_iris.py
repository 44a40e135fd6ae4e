"""The example ``iris``: the model of the repository, served by the engine ``onnx``."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from contracts.inference import TensorSpec
from models_examples.build import ROOT
from models_examples.iris import train
from online_worker.engines.base import LoadedModel, ModelSource
from online_worker.engines.onnx import OnnxEngine
from tests.support.endpoint_calls import asked, asked_with_tensors
from tests.support.requirements import missing

MODEL = ROOT / "iris" / "iris.onnx"


@pytest.fixture
def iris() -> Iterator[LoadedModel]:
    loaded = OnnxEngine("cpu").load(ModelSource("iris", {}, MODEL, "worker-1", lambda *_: None))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def flowers() -> tuple[train.Flowers, train.Flowers]:
    """Those learned from and those held out, where the package is or can be had."""
    try:
        return train.flowers()
    except SystemExit as error:
        missing(str(error))


def test_the_model_says_what_it_takes_and_gives(iris: LoadedModel) -> None:
    assert iris.inputs == (TensorSpec("lengths", "FP32", (-1, 4)),)
    assert iris.outputs == (TensorSpec("kind", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 3)))


def test_a_flower_of_each_kind_is_told(iris: LoadedModel) -> None:
    answer = asked(iris, {"values": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.2, 1.3], [6.7, 3.0, 5.5, 2.2]]})

    assert answer["values"] == answer["outputs"]["kind"] == [0, 1, 2]
    probabilities = np.array(answer["outputs"]["probabilities"])
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_flowers_that_it_never_saw_are_told_as_the_readme_says(
    iris: LoadedModel, flowers: tuple[train.Flowers, train.Flowers]
) -> None:
    _, held_out = flowers

    kinds = asked_with_tensors(iris, lengths=held_out.lengths.astype(np.float32))["kind"]

    right = int((kinds == held_out.kinds).sum())
    told = f"{right / len(kinds):.1%} of {len(kinds)} held-out flowers, ten of each kind ({right} right)"
    assert told.replace("%", " %") in (ROOT / "iris" / "README.md").read_text()
    assert np.bincount(held_out.kinds).tolist() == [10, 10, 10]
    assert right >= 28


def test_the_training_makes_the_model_of_the_repository(
    flowers: tuple[train.Flowers, train.Flowers], tmp_path: Path
) -> None:
    target = tmp_path / "iris.onnx"

    subprocess.run(
        [sys.executable, "-B", "-m", "models_examples.iris.train", str(target)], cwd=ROOT.parent, check=True, timeout=60
    )

    made, committed = onnx.load(target), onnx.load(MODEL)
    for ours, theirs in zip(made.graph.initializer, committed.graph.initializer, strict=True):
        np.testing.assert_allclose(onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs), rtol=1e-4)
        ours.ClearField("raw_data")
        theirs.ClearField("raw_data")
    assert made == committed


def test_no_flower_is_both_learned_from_and_held_out(flowers: tuple[train.Flowers, train.Flowers]) -> None:
    known, held_out = flowers

    assert (len(known.kinds), len(held_out.kinds)) == (120, 30)
    assert np.bincount(known.kinds).tolist() == [40, 40, 40]
    everything = sorted(map(tuple, np.vstack([known.lengths, held_out.lengths]).tolist()))
    source = json.loads(train.read_package_files(train.PACKAGE, [train.DATA])[train.DATA])
    assert everything == sorted(tuple(row[column] for column in train.COLUMNS) for row in source)

"""Trains a classifier of iris flowers with numpy, and exports it: ``python -m models_examples.iris.train [OUT.onnx]``.

Multinomial logistic regression on four lengths: of sepals and petals, in centimetres. What is held out for the test are
every fifth flower of each kind.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from models_examples.ocr.package_files import read_package_files

PACKAGE = "vega-datasets==0.9.0"
DATA = "vega_datasets/_data/iris.json"
COLUMNS = ("sepalLength", "sepalWidth", "petalLength", "petalWidth")
KINDS = ("setosa", "versicolor", "virginica")
MODEL = Path(__file__).with_name("iris.onnx")

_HELD_OUT_EVERY = 5
_STEPS, _RATE, _WEIGHT_DECAY = 3000, 0.5, 1e-3
_OPSET, _IR_VERSION = 13, 8
"""Of 2020 and 2021: read by every onnxruntime from 1.10 on."""

Array = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.int64]


class Flowers(NamedTuple):
    """Lengths in cm, a row of COLUMNS per flower, and numbers of KINDS."""

    lengths: Array
    kinds: Kinds

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Flowers":
        """Those that are chosen."""
        return Flowers(self.lengths[chosen], self.kinds[chosen])


class Classifier(NamedTuple):
    """Scores are ``lengths @ weights + biases``; the largest one wins."""

    weights: Array
    biases: Array

    def kinds(self, lengths: Array) -> Kinds:
        """The likeliest kind of each flower."""
        return (lengths @ self.weights + self.biases).argmax(axis=1)


def flowers() -> tuple[Flowers, Flowers]:
    """Those to learn from, and those held out."""
    rows = json.loads(read_package_files(PACKAGE, [DATA])[DATA])
    lengths = np.array([[row[column] for column in COLUMNS] for row in rows], dtype=np.float64)
    kinds = np.array([KINDS.index(row["species"]) for row in rows], dtype=np.int64)
    place = np.array([int((kinds[:number] == kind).sum()) for number, kind in enumerate(kinds)])
    held_out = place % _HELD_OUT_EVERY == 0
    everything = Flowers(lengths, kinds)
    return everything.where(~held_out), everything.where(held_out)


def trained(known: Flowers) -> Classifier:
    """The classifier after gradient descent from nought, on lengths of mean 0 and deviation 1."""
    mean, deviation = known.lengths.mean(axis=0), known.lengths.std(axis=0)
    lengths = (known.lengths - mean) / deviation
    wanted = np.eye(len(KINDS))[known.kinds]
    weights, biases = np.zeros((len(COLUMNS), len(KINDS))), np.zeros(len(KINDS))
    for _ in range(_STEPS):
        scores = lengths @ weights + biases
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        errors = (likely - wanted) / len(lengths)
        weights -= _RATE * (lengths.T @ errors + _WEIGHT_DECAY * weights)
        biases -= _RATE * errors.sum(axis=0)
    scaled = weights / deviation[:, None]
    return Classifier(scaled, biases - mean @ scaled)


def accuracy(classifier: Classifier, tested: Flowers) -> float:
    """The share of flowers whose kind is found."""
    return float((classifier.kinds(tested.lengths) == tested.kinds).mean())


def exported(classifier: Classifier) -> onnx.ModelProto:
    """``lengths`` [rows, 4] to ``kind`` [rows] and ``probabilities`` [rows, 3]."""
    nodes = [
        helper.make_node("Gemm", ["lengths", "weights", "biases"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["kind"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    numbers = [
        helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.astype("<f4").tobytes(), raw=True)
        for name, array in (("weights", classifier.weights), ("biases", classifier.biases))
    ]
    graph = helper.make_graph(
        nodes,
        "iris",
        [helper.make_tensor_value_info("lengths", TensorProto.FLOAT, ["rows", len(COLUMNS)])],
        [
            helper.make_tensor_value_info("kind", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", len(KINDS)]),
        ],
        initializer=numbers,
        doc_string=f"Lengths in cm: {', '.join(COLUMNS)}. Kinds: {', '.join(KINDS)}.",
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="models_examples.iris",
    )
    helper.set_model_props(model, {"kinds": ",".join(KINDS), "columns": ",".join(COLUMNS)})
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, export, and print the accuracy on what was held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, nargs="?", default=MODEL, metavar="OUT.onnx")
    target: Path = parser.parse_args().target
    known, tested = flowers()
    classifier = trained(known)
    target.write_bytes(exported(classifier).SerializeToString(deterministic=True))
    print(f"{target}: {accuracy(classifier, tested):.1%} of {len(tested.kinds)} held-out flowers")


if __name__ == "__main__":
    main()

"""Small ONNX models, made for one test each; the numbers that they give can be worked out in the head."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

OPSET, IR_VERSION = 13, 8

Declared = tuple[str, int, Sequence[int | str | None]]
"""Name, element type, shape."""


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Declared],
    outputs: Sequence[Declared | onnx.ValueInfoProto],
    *,
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*declared) for declared in inputs],
        [one if isinstance(one, onnx.ValueInfoProto) else helper.make_tensor_value_info(*one) for one in outputs],
        initializer=list(initializers),
    )
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=list(functions))


def saved(made: onnx.ModelProto, path: Path) -> Path:
    """The model as a file."""
    path.write_bytes(made.SerializeToString())
    return path


def doubling(rows: int | str | None = "N", datatype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """``y = x + x`` for rows of two numbers."""
    return model(
        [helper.make_node("Add", ["x", "x"], ["y"])], [("x", datatype, [rows, 2])], [("y", datatype, [rows, 2])]
    )


def mixing() -> onnx.ModelProto:
    """``sum = a + b`` and ``difference = a - b`` for rows of three numbers."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    rows: Sequence[int | str | None] = ["N", 3]
    names = ("a", "b"), ("sum", "difference")
    inputs, outputs = ([(name, TensorProto.FLOAT, rows) for name in group] for group in names)
    return model(nodes, inputs, outputs)


def picking() -> onnx.ModelProto:
    """``y`` is the number of [10, 20, 30] at each index of ``i``; an index that is not there is an error at run time."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10, 20, 30])
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    return model([node], [("i", TensorProto.INT64, ["N"])], [("y", TensorProto.FLOAT, ["N"])], initializers=[table])


def naming() -> onnx.ModelProto:
    """What classifiers of scikit-learn give: ``score``, and ``by_class``, a map for each row (ZipMap)."""
    zipmap = helper.make_node("ZipMap", ["score"], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=[7, 8])
    by_class = helper.make_value_info(
        "by_class",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        ),
    )
    return model(
        [helper.make_node("Identity", ["x"], ["score"]), zipmap],
        [("x", TensorProto.FLOAT, ["N", 2])],
        [("score", TensorProto.FLOAT, ["N", 2]), by_class],
        domains=["ai.onnx.ml"],
    )

"""Uploaded ONNX files that reach beyond themselves are refused, wherever in the file the reaching stands."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from online_worker.engines.onnx_safety import LARGEST_MODEL_BYTES, ModelRefused, require_safe
from tests.support.onnx_models import doubling, model, naming, saved

X, Y = ("x", TensorProto.FLOAT, ["N", 2]), ("y", TensorProto.FLOAT, ["N", 2])


def outside(location: str = "weights.bin", name: str = "w") -> TensorProto:
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **attributes)


def graph_around(node: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2])])


def branching(node: onnx.NodeProto) -> onnx.ModelProto:
    """The node two subgraphs deep."""
    empty = graph_around(constant(value=helper.make_tensor("v", TensorProto.FLOAT, [2], [0, 0])))
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    inner = helper.make_node("If", ["yes"], ["c"], then_branch=graph_around(node), else_branch=empty)
    outer = helper.make_node("If", ["yes"], ["c"], then_branch=graph_around(inner), else_branch=empty)
    return model([outer, helper.make_node("Add", ["x", "c"], ["y"])], [X], [Y], initializers=[yes])


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


def indices() -> TensorProto:
    return helper.make_tensor("at", TensorProto.INT64, [2], [0, 1])


def in_initializer() -> onnx.ModelProto:
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y], initializers=[outside()])


def in_sparse_initializer() -> onnx.ModelProto:
    made = doubling()
    made.graph.sparse_initializer.append(sparse(outside(), indices()))
    return made


def in_sparse_indices() -> onnx.ModelProto:
    made = doubling()
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    made.graph.sparse_initializer.append(sparse(values, outside(name="at")))
    return made


def in_constant_of_subgraph() -> onnx.ModelProto:
    return branching(constant(value=outside()))


def in_sparse_constant_of_subgraph() -> onnx.ModelProto:
    return branching(constant(sparse_value=sparse(outside(), indices())))


def in_list_of_tensors() -> onnx.ModelProto:
    made = doubling()
    attribute = onnx.AttributeProto(name="tensors", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(outside())
    made.graph.node[0].attribute.append(attribute)
    return made


def in_function() -> onnx.ModelProto:
    inside = [constant(value=outside()), helper.make_node("Add", ["a", "c"], ["b"])]
    opsets = [helper.make_opsetid("", 13)]
    function = helper.make_function("own", "Shift", ["a"], ["b"], inside, opsets)
    return model(
        [helper.make_node("Shift", ["x"], ["y"], domain="own")], [X], [Y], functions=[function], domains=["own"]
    )


def in_default_of_function() -> onnx.ModelProto:
    made = in_function()
    del made.functions[0].node[0].attribute[:]
    made.functions[0].attribute_proto.append(helper.make_attribute("value", outside()))
    return made


def in_training_information() -> onnx.ModelProto:
    made = doubling()
    made.training_info.add().initialization.initializer.append(outside())
    return made


def without_the_mark() -> onnx.ModelProto:
    """The place is named, and the tensor does not say that it is to be looked up there."""
    made = in_initializer()
    made.graph.initializer[0].ClearField("data_location")
    return made


def without_a_place() -> onnx.ModelProto:
    made = in_initializer()
    del made.graph.initializer[0].external_data[:]
    return made


@pytest.mark.parametrize(
    "made",
    [
        in_initializer,
        in_sparse_initializer,
        in_sparse_indices,
        in_constant_of_subgraph,
        in_sparse_constant_of_subgraph,
        in_list_of_tensors,
        in_function,
        in_default_of_function,
        in_training_information,
        without_the_mark,
        without_a_place,
    ],
)
def test_external_data_is_refused_wherever_it_stands(made: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    path = saved(made(), tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(8))

    with pytest.raises(ModelRefused, match="must be a single file") as refused:
        require_safe(path)

    assert "'w'" in str(refused.value) or "'at'" in str(refused.value)


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin/../../secret", "..\\secret"])
def test_a_path_out_of_the_folder_is_refused_without_being_opened(location: str, tmp_path: Path) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y], initializers=[outside(location)])

    with pytest.raises(ModelRefused) as refused:
        require_safe(saved(made, tmp_path / "model.onnx"))

    assert repr(location) in str(refused.value)


def test_links_beside_the_model_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8))
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / "symbolic.bin").symlink_to(secret)
    os.link(secret, folder / "hard.bin")

    for location in ("symbolic.bin", "hard.bin"):
        made = model([helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y], initializers=[outside(location)])
        with pytest.raises(ModelRefused, match="must be a single file"):
            require_safe(saved(made, folder / "model.onnx"))


@pytest.mark.parametrize("place", ["graph", "subgraph", "function"])
def test_an_operator_of_another_domain_is_refused_by_its_names(place: str, tmp_path: Path) -> None:
    foreign = helper.make_node("Encrypt", [], ["c"], domain="com.example.ops")
    made = {
        "graph": lambda: model(
            [foreign, helper.make_node("Add", ["x", "c"], ["y"])], [X], [Y], domains=["com.example.ops"]
        ),
        "subgraph": lambda: branching(foreign),
        "function": in_function,
    }[place]()
    if place == "function":
        made.functions[0].node[0].CopyFrom(foreign)

    with pytest.raises(ModelRefused) as refused:
        require_safe(saved(made, tmp_path / "model.onnx"))

    assert "'Encrypt'" in str(refused.value)
    assert "'com.example.ops'" in str(refused.value)


def test_a_compiled_part_that_names_a_file_is_refused(tmp_path: Path) -> None:
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context="../x.bin"
    )

    with pytest.raises(ModelRefused, match="'EPContext' names another file"):
        require_safe(saved(model([node], [X], [Y], domains=["com.microsoft"]), tmp_path / "model.onnx"))


def test_functions_of_the_file_and_operators_of_onnxruntime_are_taken(tmp_path: Path) -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)]
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["t"], domain="own"),
        helper.make_node("Gelu", ["t"], ["y"], domain="com.microsoft"),
    ]
    made = model(nodes, [X], [Y], functions=[function], domains=["own", "com.microsoft"])

    require_safe(saved(made, tmp_path / "model.onnx"))
    require_safe(saved(naming(), tmp_path / "zipmap.onnx"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "The file is empty."),
        (b"Dear colleague, please find attached", "no ONNX model"),
        (b"PK\x03\x04" + bytes(60), "no ONNX model"),
        (b"<html></html>", "no ONNX model"),
        (onnx.ModelProto(ir_version=8, producer_name="nobody").SerializeToString(), "no ONNX model"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelRefused, match=why):
        require_safe(path)


def test_a_model_cut_short_is_refused(tmp_path: Path) -> None:
    path = saved(doubling(), tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(ModelRefused, match="no ONNX model"):
        require_safe(path)


def test_a_file_longer_than_any_onnx_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(LARGEST_MODEL_BYTES + 1)

    with pytest.raises(ModelRefused, match="a single ONNX file has at most"):
        require_safe(path)


def test_a_name_is_shown_in_one_short_line(tmp_path: Path) -> None:
    made = model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [X],
        [Y],
        initializers=[outside("\n".join(["/etc/passwd"] * 1000))],
    )

    with pytest.raises(ModelRefused) as refused:
        require_safe(saved(made, tmp_path / "model.onnx"))

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_model_is_taken_or_refused_and_nothing_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = in_function().SerializeToString()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:place] + data.draw(st.binary(min_size=1, max_size=4)) + whole[place + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(damaged)

    try:
        require_safe(path)
    except ModelRefused as refused:
        assert str(refused)  # noqa: PT017 - to be taken is fine too: some bytes are names and numbers

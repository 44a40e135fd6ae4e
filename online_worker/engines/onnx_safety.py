"""What is refused of an uploaded ONNX file before onnxruntime sees it: all that reaches beyond the file itself.

A tensor may name a file that holds its numbers. onnx and onnxruntime have each followed such a name out of the model's
folder (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446 by hard links, CVE-2026-34447 by symbolic ones).
A model is one file here, so no such tensor is taken, wherever in the file it stands: the walk goes through every
message of the protobuf, not through the places where a tensor is expected.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

LARGEST_MODEL_BYTES = 2**31 - 1
"""A protobuf message cannot be longer; what is larger needs external data."""
_BUILT_IN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that come with onnxruntime; 'com.microsoft' are those that its own quantisation and fusion tools write."""
_READS_FILES = frozenset({"EPContext"})
"""Built-in operators whose attributes name files: https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html"""
_LONGEST_NAME = 100


class ModelRefused(ValueError):
    """The file is not served; the message says why, for whoever uploaded it."""


def require_safe(path: Path) -> None:
    """Read the file as ONNX and look at all of it.

    Raises
    ------
    ModelRefused
        It is empty, too large, no ONNX, needs another file, or uses operators that do not come with onnxruntime.
    """
    size = path.stat().st_size
    if size == 0:
        raise ModelRefused("The file is empty.")
    if size > LARGEST_MODEL_BYTES:
        raise ModelRefused(f"The model has {size} bytes; a single ONNX file has at most {LARGEST_MODEL_BYTES}.")
    model = _parsed(path)
    defined = {(function.domain, function.name) for function in model.functions}
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto):
            _require_own_data(message)
        elif isinstance(message, onnx.NodeProto):
            _require_built_in(message, defined)


def _parsed(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelRefused("The file is no ONNX model: it cannot be read as one.") from error
    if not model.HasField("graph") or not model.graph.output or not model.opset_import:
        raise ModelRefused("The file is no ONNX model: it has no graph with outputs, or names no operator set.")
    return model


def _messages(root: Message) -> Iterator[Message]:
    """The message and all below it. Tensors are not entered: their numbers may be most of the file."""
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        if isinstance(message, onnx.TensorProto):
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if isinstance(value, Message) else value)


def _require_own_data(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        file = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        raise ModelRefused(
            f"The tensor {_shown(tensor.name)} has its data in another file, {_shown(file)}. "
            "A model must be a single file: save it without external data."
        )


def _require_built_in(node: onnx.NodeProto, defined: set[tuple[str, str]]) -> None:
    if node.op_type in _READS_FILES:
        raise ModelRefused(
            f"The operator {_shown(node.op_type)} names another file. "
            "Save the model as it was before it was compiled for a device."
        )
    if node.domain not in _BUILT_IN_DOMAINS and (node.domain, node.op_type) not in defined:
        raise ModelRefused(
            f"The operator {_shown(node.op_type)} belongs to the domain {_shown(node.domain)}, which needs a library "
            "of its own. Only operators of ONNX and onnxruntime are run, and functions that the file itself defines."
        )


def _shown(name: str) -> str:
    """The name, quoted and with its control characters escaped; the middle is cut out of a long one."""
    half = _LONGEST_NAME // 2
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}")

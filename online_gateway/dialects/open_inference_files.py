"""What a request to load a model may carry: a file to install, as Triton's clients send it."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from contracts.errors import InvalidRequest
from contracts.inference import UNREADABLE

_FILE = "file:"


def file_to_install(parameters: Mapping[str, Any]) -> bytes | None:
    """The content of the one file in the parameters; None where there is none.

    Raises
    ------
    InvalidRequest
        They ask for what cannot be done here; the message says what can.
    """
    files = {key: value for key, value in parameters.items() if key.startswith(_FILE)}
    _check_config(parameters.get("config"), has_file=bool(files))
    return _only_file(files) if files else None


def _check_config(config: Any, *, has_file: bool) -> None:
    """Triton wants a configuration beside a file. What it says of the backend must be true; the rest is the model's."""
    if config is None:
        return
    if not has_file:
        raise InvalidRequest("'config' cannot be changed here: the configuration of a model is read from its file.")
    try:
        read = msgspec.json.decode(config, type=dict[str, Any]) if isinstance(config, str) else None
    except UNREADABLE:
        read = None
    if read is None:
        raise InvalidRequest("'config' must be a string with a JSON object.")
    platform, backend = read.get("platform") or "", read.get("backend") or ""
    if platform not in {"", "onnxruntime_onnx"} or backend not in {"", "onnxruntime"}:
        raise InvalidRequest(f"Only ONNX models can be installed, not {platform or backend!r}.")


def _only_file(files: Mapping[str, Any]) -> bytes:
    if len(files) != 1:
        raise InvalidRequest("Send one file, such as 'file:1/model.onnx': a model is one ONNX file here.")
    (name, content), *_ = files.items()
    if not name.endswith(".onnx"):
        raise InvalidRequest(f"{name!r} is no ONNX file; send one, such as 'file:1/model.onnx'.")
    try:
        return base64.b64decode(content, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidRequest(f"{name!r} is not base64: {error}.") from error

"""What the Open Inference Protocol tells of a model: metadata, configuration, state, statistics.

The last three are extensions of the Triton server (its ``extension_model_configuration.md``,
``extension_model_repository.md`` and ``extension_statistics.md``). Statistics are counted by model: they are told under
the version that answers now.
"""

from typing import Any

from contracts.inference import BYTES, EndpointNotReady, TensorSpec
from online_gateway.dataplane.statistics import EndpointStatistics, Histogram
from online_gateway.information import EndpointInfo

_STATES = {"ready": "READY", "loading": "LOADING"}
_PLATFORMS = {"onnx": ("onnxruntime_onnx", "onnxruntime"), "python": ("python", "python"), "echo": ("echo", "echo")}


def metadata(info: EndpointInfo) -> dict[str, Any]:
    """Versions, inputs and outputs.

    Raises
    ------
    EndpointNotReady
        No model is loaded yet.
    """
    _require_loaded(info)
    return {
        "name": info.name,
        "versions": [str(generation) for generation in info.generations],
        "platform": _PLATFORMS[info.engine][0],
        "inputs": [_metadata_tensor(spec) for spec in info.inputs],
        "outputs": [_metadata_tensor(spec) for spec in info.outputs],
    }


def configuration(info: EndpointInfo) -> dict[str, Any]:
    """Triton's ModelConfig, as far as there is something to say; raises as :func:`metadata` does."""
    _require_loaded(info)
    platform, backend = _PLATFORMS[info.engine]
    return {
        "name": info.name,
        "platform": platform,
        "backend": backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,  # in Triton's words: shapes are whole, a first dimension for the batch included
        "input": [_config_tensor(spec) for spec in info.inputs],
        "output": [_config_tensor(spec) for spec in info.outputs],
    }


def _require_loaded(info: EndpointInfo) -> None:
    if info.generation is None:
        raise EndpointNotReady(info.reason or f"{info.name!r} has no model yet.")


def _metadata_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _config_tensor(spec: TensorSpec) -> dict[str, Any]:
    data_type = "STRING" if spec.datatype == BYTES else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{data_type}", "dims": list(spec.shape)}


def index_entry(info: EndpointInfo) -> dict[str, str]:
    """Its line in the index of the repository."""
    version = {} if info.generation is None else {"version": str(info.generation)}
    return {"name": info.name, **version, "state": _STATES.get(info.state, "UNAVAILABLE"), "reason": info.reason}


def model_statistics(info: EndpointInfo) -> dict[str, Any]:
    """Its calls since the gateway began."""
    counted = info.statistics
    return {
        "name": info.name,
        "version": "" if info.generation is None else str(info.generation),
        "last_inference": 0,
        "inference_count": counted.handled,
        "execution_count": counted.handled,
        "inference_stats": _inference_statistics(counted),
        "batch_stats": [],
    }


def _inference_statistics(counted: EndpointStatistics) -> dict[str, Any]:
    waited = max(0.0, counted.handling.total_seconds - counted.inference.total_seconds)
    nothing = {"count": 0, "ns": 0}
    return {
        "success": _duration(counted.handling),
        "fail": {"count": counted.failed, "ns": 0},
        "queue": {"count": counted.handling.count, "ns": int(waited * 1e9)},
        "compute_input": nothing,
        "compute_infer": _duration(counted.inference),
        "compute_output": nothing,
        "cache_hit": nothing,
        "cache_miss": nothing,
    }


def _duration(histogram: Histogram) -> dict[str, int]:
    return {"count": histogram.count, "ns": int(histogram.total_seconds * 1e9)}

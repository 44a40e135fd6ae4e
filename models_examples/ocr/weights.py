"""Opens the networks of the model folder with onnxruntime, on as many threads as this container may use."""

import math
import os
from pathlib import Path

# Official builds from 1.29 on report their use to Microsoft unless this is set before the import; a model tells nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors

DETECTOR = "detector.onnx"
RECOGNISER = "recogniser.onnx"
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_ERRORS_ONLY = 3
_LOAD_ERRORS = (
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidProtobuf,
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.RuntimeException,
)


class WeightsError(Exception):
    """The model folder does not hold what the program needs; the message says how to get it there."""


def open_network(folder: Path, name: str) -> onnxruntime.InferenceSession:
    """The network in this file.

    Raises
    ------
    WeightsError
        The file is missing or is no ONNX network.
    """
    path = folder / name
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing: this model was registered without its content; "
            "make the zip with make_content.py and post it with the model."
        )
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        raise WeightsError(f"{path} is not a readable ONNX network; make the content zip anew. ({error})") from error


def usable_cpus() -> int:
    """CPU cores to use: OMP_NUM_THREADS where it is set, else what affinity and the container's quota allow."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else min(cpus, math.ceil(int(quota) / int(period)))

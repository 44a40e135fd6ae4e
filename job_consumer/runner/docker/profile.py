"""What a model container may do: the engine's options for one run, decided here alone."""

from typing import Any

from docker.types import DeviceRequest, LogConfig, Ulimit

from contracts.models import Limits, ModelForRun

_LOG_FILE_SIZE = "6m"
_LOG_FILES = "2"
"""Two files, since a single one is emptied when it is full. 64 KiB of the shortest lines take 5.4 MB of the engine's
JSON, so that what one file holds is always enough for the tail that is kept."""

_OPEN_FILES = 16_384
"""Many, and below the hard limit of engines that are limited themselves; the engine's default may be a billion, which
some programs walk through."""
_NANO = 1_000_000_000
_LEAST_SHM_BYTES = 4096
"""The engine reads 0 as its own default of 64 MB."""


def host_options(limits: Limits, gpu_uuid: str | None, cores: int) -> dict[str, Any]:
    """Keyword arguments for the SDK's ``create_host_config``, mounts apart.

    ``cores`` is what the engine's host has: it refuses a limit above that, which bounds nothing anyway.
    The engine's seccomp profile and private namespaces stay on by not being named.
    """
    return {
        "network_mode": limits.network,
        "ipc_mode": "private",
        "shm_size": max(limits.shm_bytes, _LEAST_SHM_BYTES),
        "cap_drop": ["ALL"],
        "cap_add": list(limits.capabilities),
        "security_opt": ["no-new-privileges"],
        "pids_limit": limits.pids,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": int(min(limits.cpus, cores) * _NANO),
        "ulimits": [
            Ulimit(name="nofile", soft=_OPEN_FILES, hard=_OPEN_FILES),
            Ulimit(name="core", soft=0, hard=0),
        ],
        "init": True,
        "auto_remove": False,
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": _LOG_FILE_SIZE, "max-file": _LOG_FILES}),
        "device_requests": (
            [DeviceRequest(device_ids=[gpu_uuid], capabilities=[["gpu"]])] if gpu_uuid is not None else None
        ),
    }


def environment(model: ModelForRun, gpu_uuid: str | None) -> dict[str, str]:
    """Variables of the container: the three folders under the names that the process runner uses, and the card.

    CUDA base images say ``NVIDIA_VISIBLE_DEVICES=all``, which opens every card where the engine's default runtime is
    NVIDIA's; a model that asked for none gets none.
    """
    return {
        "INPUT_DIR": model.input_mountpoint,
        "OUTPUT_DIR": model.output_mountpoint,
        "MODEL_DIR": model.model_mountpoint,
        "NVIDIA_VISIBLE_DEVICES": gpu_uuid or "void",
    }


def gpu_for(model: ModelForRun, gpu_uuid: str | None) -> str | None:
    """The card that a run of this model gets."""
    return gpu_uuid if model.use_gpu else None

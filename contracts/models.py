"""Models as they cross the wire: registration, limits, and what a consumer needs to run one."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_INPUT_MOUNTPOINT = "/input"
DEFAULT_OUTPUT_MOUNTPOINT = "/output"
DEFAULT_MODEL_MOUNTPOINT = "/model"

MOUNTPOINT_PATTERN = r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"
"""An absolute path; no part begins with a dot, so none of them is ``..``."""
HUMAN_READABLE_ID_PATTERN = r"^[^\s/\\\x00-\x1f\x7f.-]([^/\\\x00-\x1f\x7f]{0,126}[^\s/\\\x00-\x1f\x7f])?$"
"""A name for people: anything printable but slashes, no blank at its ends, no dot or dash at its beginning."""

Network = Literal["none", "bridge"]


class RequestedLimits(BaseModel):
    """What a model asks for at its registration; ``None`` takes the operator's default.

    The wire names are these field names, as optional query fields of ``POST /api/models/``.
    """

    model_config = ConfigDict(frozen=True)

    timeout_seconds: float | None = Field(default=None, gt=0, description="Wall clock of one run, in seconds.")
    memory_bytes: int | None = Field(default=None, ge=16 * 2**20, description="Memory, swap included, in bytes.")
    cpus: float | None = Field(default=None, ge=0.01, description="CPU cores; 0.5 is half a core.")
    pids: int | None = Field(default=None, ge=1, description="Processes and threads at once.")
    shm_bytes: int | None = Field(default=None, ge=0, description="Size of /dev/shm, in bytes.")
    network: Network | None = Field(default=None, description="'none', or 'bridge' where the operator allows it.")
    capabilities: tuple[str, ...] | None = Field(
        default=None, description="Linux capabilities to keep, of those that the operator allows; none by default."
    )


class Limits(BaseModel):
    """The profile that one run gets: every value decided."""

    model_config = ConfigDict(frozen=True)

    timeout_seconds: float
    memory_bytes: int
    cpus: float
    pids: int
    shm_bytes: int
    network: Network = "none"
    capabilities: tuple[str, ...] = ()


class BlobRef(BaseModel):
    """The identity of stored bytes."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


class ModelView(BaseModel):
    """A registered model, as the public API shows it."""

    uid: str
    human_readable_id: str
    description: str | None
    container_tag: str
    use_gpu: bool
    model_available: bool
    input_mountpoint: str
    output_mountpoint: str
    model_mountpoint: str
    limits: RequestedLimits
    content: BlobRef | None = Field(description="The model zip, where one was posted.")
    created_at: datetime


class ModelForRun(BaseModel):
    """A model, as the consumer that runs it needs it."""

    model_config = ConfigDict(frozen=True)

    uid: str
    human_readable_id: str
    container_tag: str
    use_gpu: bool
    input_mountpoint: str
    output_mountpoint: str
    model_mountpoint: str
    limits: Limits
    content: BlobRef | None

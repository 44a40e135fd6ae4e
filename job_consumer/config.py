"""Settings of job_consumer, read from the environment."""

from pathlib import Path
from typing import Literal, Self

from pydantic import DirectoryPath, Field, model_validator

from contracts.archives import ArchiveLimits
from service_kit.logging import LogFormat
from service_kit.settings import LONGEST_SECONDS, BrokerAddress, HeaderToken, HttpAddress, LogLevel, Settings


class JobConsumerSettings(Settings):
    """One field per environment variable, in capitals."""

    private_api_url: HttpAddress = Field(description="Where private_api answers, for example http://private-api:7000.")
    internal_token: HeaderToken = Field(description="The token that the services share.")
    rabbitmq_url: BrokerAddress = Field(
        default=None, description="amqp://USER:PASSWORD@HOST:5672/VHOST; without it task ids come by long poll."
    )
    scratch_dir: Path = Field(description="Folder for inputs and outputs of running tasks, removed after each.")
    runner: Literal["auto", "docker", "process"] = Field(
        default="docker", description="docker, process, or auto: docker where an engine answers."
    )
    volume_mode: Literal["auto", "shared", "archive"] = Field(
        default="auto",
        description="How files reach containers: a scratch folder shared with the host, the archive API, or found out.",
    )
    models_folder: DirectoryPath | None = Field(
        default=None, description="Process runner: the folder whose sub-folders hold a model.toml each."
    )
    gpu_uuid: str | None = Field(default=None, description="The card of this consumer, as nvidia-smi -L names it.")
    gpu_index: int | None = Field(
        default=None, ge=0, description="The same by its number on this host, from 0, in the order of nvidia-smi."
    )
    take_cpu_tasks: bool = Field(default=True, description="Whether a consumer with a GPU also runs CPU tasks.")
    drain_seconds: float = Field(
        default=60,
        ge=0,
        le=LONGEST_SECONDS,
        description="After SIGTERM a running task may end within so long, else it is handed back.",
    )
    sweep_seconds: float = Field(
        default=15, gt=0, le=LONGEST_SECONDS, description="Pause between two searches for what dead runs left."
    )
    archive_max_entries: int = Field(default=100_000, gt=0, description="Most entries of an input or model zip.")
    archive_max_unpacked_bytes: int = Field(default=200 * 2**30, gt=0, description="Most bytes that a zip unpacks to.")
    archive_max_ratio: float = Field(default=200, gt=1, description="Most bytes unpacked per byte packed.")
    max_output_bytes: int = Field(default=50 * 2**30, gt=0, description="Most bytes that a model may leave.")
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field(default="auto", description="json, text, or auto: text on a terminal.")

    @model_validator(mode="after")
    def _one_name_for_the_card(self) -> Self:
        if self.gpu_uuid is not None and self.gpu_index is not None:
            raise ValueError("GPU_UUID and GPU_INDEX both name the card of this consumer; set one.")
        return self

    @property
    def has_gpu(self) -> bool:
        """Whether GPU tasks may come here."""
        return self.gpu_uuid is not None or self.gpu_index is not None

    @property
    def archive_limits(self) -> ArchiveLimits:
        """The bounds of input and model zips."""
        return ArchiveLimits(self.archive_max_entries, self.archive_max_unpacked_bytes, self.archive_max_ratio)

"""The settings of private_api, read once from the environment."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from contracts.archives import ArchiveLimits
from contracts.models import Limits
from service_kit.logging import LogFormat
from service_kit.settings import LONGEST_SECONDS, BrokerAddress, HeaderToken, LogLevel, Settings

_GIB = 2**30
_CEILED = ("timeout_seconds", "memory_bytes", "cpus", "pids", "shm_bytes")


def database_in(folder: Path) -> str:
    """The address of the database that lies beside the stored files, where one folder holds a whole platform."""
    return f"sqlite:///{folder.resolve() / 'platform.db'}"


class PrivateApiSettings(Settings):
    """Each field is the environment variable of the same name in upper case."""

    database_url: SecretStr = Field(description="sqlite:////path/to/file or postgresql://user:password@host/name.")
    data_dir: Path = Field(description="Folder of the stored files; belongs to one private_api alone.")
    internal_token: HeaderToken = Field(description="Shared by the services; never given to users.")
    rabbitmq_url: BrokerAddress = Field(default=None, description="amqp://…; without it consumers ask over HTTP.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=7000, ge=0, le=65535, description="Port to listen on.")
    lease_seconds: float = Field(
        default=30.0, gt=0, le=LONGEST_SECONDS, description="A consumer silent for so long has lost its task."
    )
    max_attempts: int = Field(default=3, ge=1, description="Attempts of one task, those handed back not counted.")
    max_upload_bytes: int = Field(default=50 * _GIB, ge=1, description="Largest zip that a user may post.")
    max_output_bytes: int = Field(default=50 * _GIB, ge=1, description="Largest output zip that a consumer may send.")
    min_free_bytes: int = Field(default=_GIB, ge=0, description="Space that uploads leave free on DATA_DIR.")
    archive_max_entries: int = Field(default=ArchiveLimits.max_entries, ge=1, description="Most entries of a zip.")
    archive_max_unpacked_bytes: int = Field(
        default=ArchiveLimits.max_unpacked_bytes, ge=1, description="Most bytes that a zip unpacks to."
    )
    archive_max_ratio: float = Field(
        default=ArchiveLimits.max_ratio, gt=0, description="Most bytes unpacked per byte packed, of a large zip."
    )
    task_retention_hours: float = Field(
        default=0, ge=0, le=LONGEST_SECONDS / 3600, description="Ended tasks live so long; 0 keeps them."
    )
    default_timeout_seconds: float = Field(
        default=3600,
        gt=0,
        le=LONGEST_SECONDS,
        description="Wall clock of a run, in seconds; for a model that asks for nothing.",
    )
    max_timeout_seconds: float = Field(
        default=86400,
        gt=0,
        le=LONGEST_SECONDS,
        description="Wall clock of a run, in seconds; the most that a model may ask for.",
    )
    default_memory_bytes: int = Field(
        default=4 * _GIB,
        ge=16 * 2**20,
        description="Memory of a run, swap included, in bytes; for a model that asks for nothing.",
    )
    max_memory_bytes: int = Field(
        default=64 * _GIB,
        ge=16 * 2**20,
        description="Memory of a run, swap included, in bytes; the most that a model may ask for.",
    )
    default_cpus: float = Field(
        default=2.0, ge=0.01, description="CPU cores of a run; for a model that asks for nothing."
    )
    max_cpus: float = Field(default=64.0, ge=0.01, description="CPU cores of a run; the most that a model may ask for.")
    default_pids: int = Field(
        default=256, ge=1, description="Processes and threads of a run; for a model that asks for nothing."
    )
    max_pids: int = Field(
        default=4096, ge=1, description="Processes and threads of a run; the most that a model may ask for."
    )
    default_shm_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Size of /dev/shm in a run, in bytes; for a model that asks for nothing."
    )
    max_shm_bytes: int = Field(
        default=16 * _GIB, ge=0, description="Size of /dev/shm in a run, in bytes; the most that a model may ask for."
    )
    allow_model_network: bool = Field(default=False, description="Whether a model may ask for the network 'bridge'.")
    allowed_capabilities: str = Field(default="", description="Capabilities that models may keep, by comma.")
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field(default="auto", description="json, text, or auto: text on a terminal.")

    @model_validator(mode="after")
    def _defaults_below_ceilings(self) -> Self:
        for name in _CEILED:
            default, ceiling = getattr(self, f"default_{name}"), getattr(self, f"max_{name}")
            if default > ceiling:
                shown = name.upper()
                raise ValueError(f"DEFAULT_{shown} ({default}) is above MAX_{shown} ({ceiling}); change one.")
        return self

    @property
    def lease(self) -> timedelta:
        """How long a claim or heartbeat holds."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def retention(self) -> timedelta | None:
        """How long ended tasks are kept; None for ever."""
        return timedelta(hours=self.task_retention_hours) if self.task_retention_hours else None

    @property
    def archive_limits(self) -> ArchiveLimits:
        """What a zip may hold."""
        return ArchiveLimits(self.archive_max_entries, self.archive_max_unpacked_bytes, self.archive_max_ratio)

    @property
    def default_limits(self) -> Limits:
        """What a model gets that asks for nothing."""
        return Limits.model_validate({name: getattr(self, f"default_{name}") for name in _CEILED})

    @property
    def ceilings(self) -> Limits:
        """The most that a model may ask for."""
        given = {name: getattr(self, f"max_{name}") for name in _CEILED}
        allowed = tuple(part.strip() for part in self.allowed_capabilities.split(",") if part.strip())
        network = "bridge" if self.allow_model_network else "none"
        return Limits.model_validate({**given, "network": network, "capabilities": allowed})

"""Settings of online_gateway, read from the environment."""

from pathlib import Path

from pydantic import Field

from service_kit.logging import LogFormat
from service_kit.settings import LONGEST_SECONDS, HeaderToken, LogLevel, Settings


class OnlineGatewaySettings(Settings):
    """One field per environment variable, in capitals."""

    data_dir: Path = Field(description="Folder of the accepted generations; they are served again after a restart.")
    worker_token: HeaderToken = Field(description="What workers must know to be taken in.")
    admin_token: HeaderToken | None = Field(
        default=None, description="Whoever sends it as a bearer token may change what is served and stop the gateway."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=5002, ge=0, le=65535, description="Port to listen on.")
    worker_host: str = Field(default="127.0.0.1", description="Address on which workers of other hosts dial in.")
    worker_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for workers of other hosts, usually 5010; unset: local ones only.",
    )
    endpoints_file: Path | None = Field(default=None, description="Configuration file of the endpoints, JSON.")
    allow_public_changes: bool = Field(
        default=False,
        description="Whether users may upload, replace and delete models without the admin token where it listens "
        "beyond loopback. Starting, stopping and resizing always take the token there.",
    )
    vector_endpoint: str = Field(
        default="vector_sum", description="The endpoint behind /predict, /set_weights and /status."
    )
    max_call_bytes: int = Field(default=32 * 2**20, gt=0, le=200 * 2**20, description="Largest body of one call.")
    max_model_bytes: int = Field(default=4 * 2**30, gt=0, description="Largest uploaded model.")
    queue_limit: int = Field(default=1024, ge=1, description="Calls of one endpoint that may wait; above it 429.")
    call_deadline_seconds: float = Field(
        default=30,
        gt=0,
        le=LONGEST_SECONDS,
        description="A call must be answered in so long, unless its endpoint says more.",
    )
    swap_seconds: float = Field(
        default=300, gt=0, le=LONGEST_SECONDS, description="A worker must have loaded a new generation in so long."
    )
    silence_seconds: float = Field(
        default=5,
        ge=0.2,
        le=LONGEST_SECONDS,
        description="A worker that says nothing for so long is given up and replaced.",
    )
    call_drain_seconds: float = Field(
        default=10, ge=0, le=LONGEST_SECONDS, description="Calls in flight may end within so long when it is stopped."
    )
    leave_seconds: float = Field(
        default=0,
        ge=0,
        le=LONGEST_SECONDS,
        description="After SIGTERM it goes on accepting for so long; see public_api.",
    )
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field(default="auto", description="json, text, or auto: text on a terminal.")

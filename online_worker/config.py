"""Settings of online_worker, read from the environment; ``infer worker`` takes the same as options."""

from pathlib import Path

from pydantic import Field

from service_kit.logging import LogFormat
from service_kit.settings import LONGEST_SECONDS, HeaderToken, LogLevel, Settings


class OnlineWorkerSettings(Settings):
    """One field per environment variable, in capitals."""

    online_gateway: str = Field(
        description="Where gateways await workers, separated by commas: tcp://host:5010, or unix:///path on one host."
    )
    endpoint: str = Field(description="The endpoint to serve; 'modelhost' serves every uploaded ONNX model.")
    worker_token: HeaderToken = Field(description="What the gateway asks every worker for.")
    worker_id: str | None = Field(default=None, description="A name of its own; by default one is made at each start.")
    modules_dir: Path | None = Field(
        default=None, description="Where endpoint modules lie on this host, if not where they lie on the gateway's."
    )
    contents_dir: Path | None = Field(
        default=None, description="Folder for the files of generations; by default a temporary one."
    )
    onnx_provider: str = Field(
        default="auto",
        pattern="^(auto|cpu|cuda)$",
        description="What ONNX models run on; auto: CUDA where there is a card.",
    )
    batch_size: int = Field(default=1024, ge=1, le=1024, description="The most calls that it predicts together.")
    away_seconds: float = Field(
        default=0,
        ge=0,
        le=LONGEST_SECONDS,
        description="It ends after so long without any gateway; 0: it tries for ever.",
    )
    call_drain_seconds: float = Field(
        default=10,
        ge=0,
        le=LONGEST_SECONDS,
        description="The calls that it holds may end within so long when it is stopped.",
    )
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field(default="auto", description="json, text, or auto: text on a terminal.")

"""Settings of online_worker, read from the environment; ``infer worker`` takes the same as options."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from contracts.inference import ENDPOINT_NAME_PATTERN
from online_worker.gateway_address import gateway_addresses
from service_kit.logging import LogFormat
from service_kit.settings import LONGEST_SECONDS, HeaderToken, LogLevel, Settings


def _check_addresses(text: str) -> str:
    gateway_addresses(text)
    return text


GatewayAddresses = Annotated[str, AfterValidator(_check_addresses)]


class OnlineWorkerSettings(Settings):
    """One field per environment variable, in capitals."""

    online_gateway: GatewayAddresses = Field(
        description="Where gateways await workers, separated by commas: tcp://host:5010, or unix:///path on one host."
    )
    endpoint: str = Field(
        pattern=ENDPOINT_NAME_PATTERN,
        description="The endpoint to serve; 'modelhost' serves every uploaded ONNX model.",
    )
    worker_token: HeaderToken = Field(description="What the gateway asks every worker for.")
    worker_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$",
        description="A name of its own; by default one is made at each start.",
    )
    modules_dir: Path | None = Field(
        default=None, description="Where endpoint modules lie on this host, if not where they lie on the gateway's."
    )
    contents_dir: Path | None = Field(
        default=None, description="Folder for the files of generations; by default a temporary one."
    )
    onnx_provider: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="What ONNX models run on; auto: CUDA where there is a card."
    )
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

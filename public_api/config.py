"""Settings of public_api, read from the environment."""

from pydantic import Field

from service_kit.logging import LogFormat
from service_kit.settings import LONGEST_SECONDS, HeaderToken, HttpAddress, LogLevel, Settings


class PublicApiSettings(Settings):
    """One field per environment variable, in capitals."""

    private_api_url: HttpAddress = Field(description="Where private_api answers, for example http://private-api:7000.")
    internal_token: HeaderToken = Field(description="The token that the services share.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    max_upload_bytes: int = Field(default=50 * 2**30, gt=0, description="Largest request body; above it 413.")
    allow_public_post_model: bool = Field(
        default=False, description="Whether users may register and remove models; otherwise those routes are absent."
    )
    upload_idle_seconds: float = Field(
        default=120,
        gt=0,
        le=LONGEST_SECONDS,
        description="A client that sends nothing for so long in mid-upload is let go.",
    )
    leave_seconds: float = Field(
        default=0,
        ge=0,
        le=LONGEST_SECONDS,
        description="After SIGTERM it goes on accepting for so long, ending each connection with its answer; make it "
        "longer than the proxy's idle timeout.",
    )
    transfer_drain_seconds: float = Field(
        default=10,
        ge=0,
        le=LONGEST_SECONDS,
        description="Then uploads and downloads in flight may end within so long.",
    )
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field(default="auto", description="json, text, or auto: text on a terminal.")

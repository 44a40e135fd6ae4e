"""One run of the command: where its server is, how it answers, and what it knows when something ends it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass
class Invocation:
    """Filled in as the command goes on, so that an error can be told with all that is known by then."""

    as_json: bool = False
    url: str = DEFAULT_URL
    ca: Path | None = None
    token: str | None = None
    uid: str | None = None
    """The task in hand."""
    given_on_top: dict[str, Any] = field(default_factory=dict)
    """The options that stood before the command."""
    go_on: str | None = None
    """The command that goes on with it."""

    def client(self) -> "InferenceClient":
        """A client of the server."""
        from inference_client.client import InferenceClient

        return InferenceClient(self.url, ca=self.ca, token=self.token)

    def server_options(self) -> str:
        """The options that name this server again, for a command that the user may copy."""
        options = "" if self.url == DEFAULT_URL else f" --url {self.url}"
        return options + (f" --ca {self.ca}" if self.ca else "")

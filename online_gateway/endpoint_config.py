"""What is served: the configuration file of endpoints, as users of the microservice gateway write it.

    {"SERVER_NAME": "...", "DEFAULT_SERVER": "...", "NO_STARTUP_WAIT": false,
     "CONFIG_ENDPOINTS": {"name": {"NR_WORKERS": 2, "HOST": "127.0.0.1", "DESCRIPTION": "...", ...}}}

``_READ`` lists the keys that the gateway itself reads; the rest, and these too, is the endpoint's own configuration.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import InvalidRequest
from contracts.inference import ENDPOINT_NAME_PATTERN, MODELHOST_POOL

EngineName = Literal["python", "onnx", "echo"]

POOL_ECHO = f"{MODELHOST_POOL}.echo"
"""The hidden endpoint of the model hosts that shows who answered."""
RESERVED_NAMES = frozenset({MODELHOST_POOL, POOL_ECHO})
"""No upload makes endpoints of these names."""

NO_HOST = "NO_HOST"
"""The HOST of a support process: a script beside the endpoints that nobody can call."""
_LOCAL_HOSTS = {"", "127.0.0.1", "localhost", "::1", "0.0.0.0"}  # noqa: S104 - compared, not bound


class EndpointConfig(BaseModel):
    """One endpoint, or one support process."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field(pattern=ENDPOINT_NAME_PATTERN)
    workers: int = Field(default=1, ge=0, le=256, alias="NR_WORKERS", description="Worker processes on this machine.")
    host: str = Field(
        default="127.0.0.1",
        alias="HOST",
        description="This machine; another one, whose workers dial in by themselves; or NO_HOST: a support process.",
    )
    description: str = Field(default="", alias="DESCRIPTION", description="A sentence for lists of models.")
    is_disabled: bool = Field(default=False, alias="DISABLED", description="Whether it waits for /start_server.")
    server_class: str | None = Field(
        default=None, alias="SERVER_CLASS", description="The endpoint whose module is used instead of one of this name."
    )
    engine: EngineName = Field(default="python", alias="ENGINE", description="What runs it: python, onnx or echo.")
    module: str | None = Field(
        default=None,
        alias="MODULE",
        description="Path of the Python file with the endpoint's class, from the file's folder.",
    )
    content: str | None = Field(
        default=None, alias="CONTENT", description="File that the first generation is made of, from the file's folder."
    )
    needs_content: bool = Field(
        default=False, alias="NEEDS_CONTENT", description="Whether it cannot serve before a file was installed."
    )
    batch_size: int = Field(
        default=1, ge=1, le=1024, alias="BATCH_SIZE", description="The most calls predicted together."
    )
    batch_delay_ms: float = Field(
        default=2.0, ge=0, le=60_000, alias="BATCH_DELAY_MS", description="How long a call waits for others to join it."
    )
    queue_limit: int | None = Field(
        default=None, ge=1, alias="QUEUE_LIMIT", description="Calls that may wait; above it 429."
    )
    deadline_seconds: float | None = Field(
        default=None, gt=0, le=86_400, alias="DEADLINE_SECONDS", description="Time in which a call must be answered."
    )
    retries_begun: bool = Field(
        default=False,
        alias="RETRY_BEGUN",
        description="Whether a call whose worker died is given to another although it had begun: it has no effects.",
    )
    config: Mapping[str, Any] = Field(default={}, description="The entry as it stands in the file.")

    @property
    def is_support(self) -> bool:
        """Whether it is a support process."""
        return self.host == NO_HOST

    @property
    def local_workers(self) -> int:
        """Worker processes that the supervisor of this gateway keeps alive from the beginning."""
        return 0 if self.is_disabled else self.local_workers_if_started

    @property
    def local_workers_if_started(self) -> int:
        """The same, once somebody has started what the file has switched off."""
        return self.workers if self.is_local else 0

    @property
    def is_local(self) -> bool:
        """Whether its workers run on this machine."""
        return self.host in _LOCAL_HOSTS

    @property
    def pool(self) -> str:
        """The workers that serve it: its own, or for an uploaded ONNX model the model hosts."""
        return MODELHOST_POOL if self.engine == "onnx" or self.name == POOL_ECHO else self.name

    @property
    def is_pool(self) -> bool:
        """Whether it is no endpoint, but the settings of the model hosts."""
        return self.name == MODELHOST_POOL

    @property
    def awaits_content(self) -> bool:
        """Whether there is nothing to serve before a file was installed."""
        return self.needs_content or self.content is not None or self.engine == "onnx"


class GatewayFile(BaseModel):
    """The whole file."""

    server_name: str = "InferenceServer"
    default_server: str | None = None
    waits_at_startup: bool = True
    endpoints: tuple[EndpointConfig, ...] = ()
    folder: Path = Path()
    """Where relative paths in it begin."""
    modules: Path | None = None
    """Folder of the endpoints' modules and of the support processes' scripts, where a program names one."""
    class_suffix: str = "Worker"
    """What follows an endpoint's name in the name of its class."""
    run_path: str = "/run"
    """Where the microservice gateway's calls arrive."""

    @property
    def supports(self) -> list[EndpointConfig]:
        """The support processes to run."""
        return [endpoint for endpoint in self.endpoints if endpoint.is_support and not endpoint.is_disabled]

    def load_config(self, endpoint: EndpointConfig) -> dict[str, Any]:
        """What a worker is told to load, beside the content.

        ``classes`` are names that the endpoint's class may have, in the order in which they are looked for.
        """
        if endpoint.engine != "python":
            return {"entry": dict(endpoint.config), "module": None, "class": None, "classes": []}
        module = self.module_of(endpoint)
        classes = [class_name(name, self.class_suffix) for name in (module.stem, endpoint.name)]
        return {
            "entry": dict(endpoint.config),
            "module": str(module),
            "class": classes[0],
            "classes": list(dict.fromkeys(classes)),
        }

    def module_of(self, endpoint: EndpointConfig) -> Path:
        """The Python file with the endpoint's class, or the script of the support process."""
        if endpoint.module is not None:
            return self.folder / endpoint.module
        name = f"{endpoint.server_class or endpoint.name}.py"
        path, beside = (self.modules or self.folder / "endpoints") / name, self.folder / name
        return beside if endpoint.is_support and not path.is_file() and beside.is_file() else path


_READ = {field.alias: name for name, field in EndpointConfig.model_fields.items() if field.alias}


def endpoint_config(name: str, entry: Mapping[str, Any]) -> EndpointConfig:
    """One entry of CONFIG_ENDPOINTS.

    Raises
    ------
    InvalidRequest
        A key that the gateway reads is wrong; the message names it.
    """
    if not isinstance(entry, Mapping):
        raise InvalidRequest(f"CONFIG_ENDPOINTS.{name} must be an object.")
    read = {key: value for key, value in entry.items() if key in _READ and value is not None}
    try:
        return EndpointConfig.model_validate({"name": name, "config": dict(entry), **read})
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidRequest(f"CONFIG_ENDPOINTS.{name}: {mistakes}") from error


def gateway_file(data: Mapping[str, Any], folder: Path) -> GatewayFile:
    """The file's content, whose relative paths begin in ``folder``.

    Raises
    ------
    InvalidRequest
        It is not what the module's docstring shows; the message names the key.
    """
    entries = data.get("CONFIG_ENDPOINTS", {})
    if not isinstance(entries, Mapping):
        raise InvalidRequest("CONFIG_ENDPOINTS must be an object: endpoint names and their settings.")
    if POOL_ECHO in entries:
        raise InvalidRequest(f"CONFIG_ENDPOINTS.{POOL_ECHO}: the name is the gateway's own; choose another one.")
    default = data.get("DEFAULT_SERVER")
    if not isinstance(default, str | None):
        raise InvalidRequest("DEFAULT_SERVER must be the name of an endpoint.")
    return GatewayFile(
        server_name=str(data.get("SERVER_NAME") or GatewayFile.model_fields["server_name"].default),
        default_server=default,
        waits_at_startup=not data.get("NO_STARTUP_WAIT", False),
        endpoints=tuple(endpoint_config(name, entry) for name, entry in entries.items()),
        folder=folder,
    )


def read_gateway_file(path: Path) -> GatewayFile:
    """Read it.

    Raises
    ------
    InvalidRequest
        It is not there, is not JSON, or a key is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # also numbers and brackets beyond what Python reads
        raise InvalidRequest(f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise InvalidRequest(f"{path} must hold an object with CONFIG_ENDPOINTS.")
    return gateway_file(data, path.resolve().parent)


def class_name(endpoint: str, suffix: str) -> str:
    """The class in an endpoint's module: ``dummy_model_demo1`` and ``Worker`` make ``DummyModelDemo1Worker``."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[_\W]+", endpoint) if part) + suffix

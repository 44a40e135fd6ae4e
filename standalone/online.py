"""The online half of a standalone platform: which endpoints it serves, and how they stand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from contracts.errors import InvalidRequest
from contracts.inference import MODELHOST_POOL
from contracts.routes import HEALTH_READY
from online_gateway.endpoint_config import EndpointConfig, GatewayFile, endpoint_config, read_gateway_file

EXAMPLES_FILE = "endpoints.json"
REQUIRES = "REQUIRES"
"""The key of an entry that lists the Python modules without which it is left out."""
_MODEL_HOST = {"ENGINE": "onnx", "NR_WORKERS": 1, REQUIRES: ["onnx", "onnxruntime"]}
_MAY_STILL_COME = {"loading", "no_workers"}


@dataclass(frozen=True)
class Endpoints:
    """What is served, and what was left out."""

    file: GatewayFile
    left_out: tuple[str, ...]
    """One line for each entry that cannot run here."""

    @property
    def are_awaited(self) -> bool:
        """Whether the platform is not ready before they are."""
        return bool(self.file.endpoints) and self.file.waits_at_startup


def endpoints_of(file: Path | None, examples: Path | None) -> Endpoints:
    """Those of the user's file, of the examples' folder if it has some, and a model host for uploaded ONNX models.

    A name of the user's file is never taken by an example.

    Raises
    ------
    InvalidRequest
        A file cannot be read, or is wrong; the message says where.
    """
    whole = read_gateway_file(file) if file is not None else GatewayFile()
    found = {endpoint.name: endpoint for endpoint in _with_whole_paths(whole)}
    waits = whole.waits_at_startup and file is not None
    if examples is not None and (examples / EXAMPLES_FILE).is_file():
        added = read_gateway_file(examples / EXAMPLES_FILE)
        found = {**{endpoint.name: endpoint for endpoint in _with_whole_paths(added)}, **found}
        waits = waits or (file is None and added.waits_at_startup)
    found.setdefault(MODELHOST_POOL, endpoint_config(MODELHOST_POOL, _MODEL_HOST))
    missing = {name: _missing_modules(endpoint) for name, endpoint in found.items()}
    kept = tuple(endpoint for name, endpoint in found.items() if not missing[name])
    lines = [
        f"  {name}: not served, needs the Python packages {', '.join(absent)}"
        for name, absent in missing.items()
        if absent and name != MODELHOST_POOL
    ]
    return Endpoints(whole.model_copy(update={"endpoints": kept, "waits_at_startup": waits}), tuple(lines))


def _with_whole_paths(file: GatewayFile) -> Iterable[EndpointConfig]:
    """Entries that may stand in a file of another folder."""
    for endpoint in file.endpoints:
        update: dict[str, Any] = {}
        if endpoint.engine == "python":
            update["module"] = str(file.module_of(endpoint))
        if endpoint.content is not None:
            update["content"] = str(file.folder / endpoint.content)
        yield endpoint.model_copy(update=update)


def _missing_modules(endpoint: EndpointConfig) -> list[str]:
    required = endpoint.config.get(REQUIRES, ())
    if not isinstance(required, list | tuple) or not all(isinstance(name, str) for name in required):
        raise InvalidRequest(f"CONFIG_ENDPOINTS.{endpoint.name}.{REQUIRES} must be a list of names of Python modules.")
    return [name for name in required if find_spec(name.partition(".")[0]) is None]


class OnlineDoor:
    """The running gateway, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def are_settled(self) -> bool:
        """Whether every endpoint can be called, or has said that it will not get there by itself."""
        states = self._endpoints()
        return states is not None and not any(one["state"] in _MAY_STILL_COME for one in states.values())

    def line(self) -> str:
        """What a person should know of the endpoints."""
        states = self._endpoints()
        if states is None:
            return f"Online endpoints at {self.url}: the gateway does not answer yet"
        ready = [name for name, one in states.items() if one["state"] == "ready"]
        lines = [f"Online endpoints at {self.url} ({', '.join(ready) or 'none yet'})"]
        lines += [
            f"  {name}: not ready, {one['reason']}"
            for name, one in states.items()
            if one["state"] not in {"ready", "disabled"}
        ]
        return "\n".join(lines)

    def _endpoints(self) -> Mapping[str, Mapping[str, str]] | None:
        try:
            body = httpx.get(self.url + HEALTH_READY, timeout=2, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return None
        endpoints: Mapping[str, Mapping[str, str]] = body["endpoints"]
        return endpoints

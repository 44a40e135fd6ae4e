"""What the gateway tells of its endpoints: plain records, for dialects, health and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from contracts.inference import TensorSpec
from online_gateway.dataplane.statistics import EndpointStatistics, LinkStatistics
from online_gateway.endpoint_config import EngineName

EndpointState = Literal["ready", "loading", "no_workers", "given_up", "disabled", "empty"]


@dataclass(frozen=True)
class WorkerInfo:
    """One worker that is connected."""

    worker_id: str
    host: str
    pid: int
    addresses: list[str]
    """The IP addresses of its host."""
    memory_bytes: int
    generation: int | None
    """The newest generation of the endpoint that it holds; None before the first."""
    statistics: LinkStatistics


@dataclass(frozen=True)
class EndpointInfo:
    """One endpoint as it is now."""

    name: str
    engine: EngineName
    description: str
    pool: str
    state: EndpointState
    """``ready``: a call can be answered now. ``loading``: workers are there, none holds the generation yet.
    ``no_workers``: none is connected. ``given_up``: its local workers died too often, or refuse what they should load.
    ``disabled``: stopped, or switched off in the file. ``empty``: it waits for a file to be installed."""
    reason: str
    """Why it is not ready, in a sentence; '' where it is."""
    generation: int | None
    """The one that answers."""
    generations: list[int]
    """Those that some worker holds."""
    label: str
    """The name given to the generation that answers."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str | None
    """The version that the endpoint's code gives itself."""
    workers: list[WorkerInfo]
    statistics: EndpointStatistics
    is_hidden: bool

    @property
    def keeps_callers_waiting(self) -> bool:
        """Whether calls cannot be answered that should be: not where it is switched off, or waits for an upload."""
        return self.state not in {"ready", "disabled", "empty"}


@dataclass(frozen=True)
class MemoryStatus:
    """Memory of this machine, and who has it; all in bytes."""

    total: int
    available: int
    system: int
    """Used by others than the gateway and its endpoints."""
    gateway: int
    endpoints: Mapping[str, int]
    """Of the workers of each endpoint; those of a shared pool are counted once, under the pool's name."""
